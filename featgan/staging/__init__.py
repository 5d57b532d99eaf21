"""When each feature group is trained on: modes, stages, criteria, pacing."""
