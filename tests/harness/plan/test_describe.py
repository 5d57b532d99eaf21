from typing import Any

import pytest
from small_run import SWEEP

from harness.plan.describe import describe, estimate_text, notes
from harness.plan.settings import Sweep


def described(settings: dict[str, Any]) -> str:
    """What a dry run prints."""
    sweep = Sweep.model_validate(settings)
    return f"{describe(sweep)}\n{estimate_text(sweep)}"


def test_a_description_has_settings_grid_runs_and_work():
    text = described(SWEEP)
    assert "stage_epochs: 4" in text
    assert "- mode:\n  - ascending\n  - conventional\n" in text
    assert "runs: 8" in text
    assert "images: a 45, d 90" in text
    # ascending: 4 x (2 + 4 + 6) and 4 x (4 + 8 + 12); conventional: 12 x 6 and 12 x 12; two seeds
    assert "training: 720 steps, 5,760 images" in text
    assert "scoring: 48 evaluations, 768 images" in text
    assert "re-scoring: 1,280 images, or on GPUs 800,000" in text  # 8 runs of 2 generators
    assert "checkpoints: at most 16, 2 for each run" in text


def test_seeds_up_to_a_limit_are_described_as_such():
    grid = {"mode": ["ascending", "conventional"], "seed": {"up_to": 6}}
    text = described(SWEEP | {"grid": grid, "rescore": True})
    assert "  seed:\n    up_to: 6\n" in text
    assert "runs: at most 24\nestimate, at most, for feature groups" in text
    text = described(SWEEP | {"rescore": False})
    assert "re-scoring: none" in text


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"score": {}}, []),
        ({"score": SWEEP["score"]}, ["CNN trained on the labels of a:"]),
        ({"score": {}, "features": {"weights": "random"}}, ["come from VGG16 fc1 with random"]),
        (
            {"score": {}, "features": {"weights": "random", "network": "resnet18", "layer": "fc"}},
            ["come from resnet18 fc with random"],
        ),
        ({"score": {"classifier": "packaged"}}, ["EfficientNet-Lite0 in Inception-v3's place"]),
        ({"score": {}, "training": {"deterministic": False}}, ["a repeated run may differ"]),
        ({"score": {}, "pilot": {"grace": 1}}, ["not for results"]),
    ],
)
def test_notes_name_what_differs_from_published_numbers(sections, expected):
    found = notes(Sweep.model_validate(SWEEP | sections))
    assert len(found) == len(expected)
    assert all(part in note for part, note in zip(expected, found, strict=True))
