"""The networks, their losses and a training step."""
