import pytest

from harness.plan.estimate import count_images, estimate
from harness.plan.grid import Cell, expand
from harness.plan.settings import Method

METHOD = {
    "image_size": 32,
    "gan": {"width": 2, "latent": 4},
    "training": {"stage_epochs": 4, "evaluate_every": 2, "batch_size": 8},
    "score": {"classifier": "trained", "trained_on": ["a"], "count": 16, "splits": 2},
}


@pytest.mark.parametrize(
    ("mode", "steps", "evaluations"),
    [("ascending", 4 * (2 + 4 + 6), 6), ("conventional", 12 * 6, 6)],  # of 15, 30, 45 images
)
def test_steps_and_images_are_those_of_the_stages(mode, steps, evaluations):
    cost = estimate(Cell("a", mode, 0, Method.model_validate(METHOD)), images=45)
    assert (cost.steps, cost.images) == (steps, 8 * steps)
    assert (cost.evaluations, cost.score_images) == (evaluations, 16 * evaluations)
    assert (cost.fresh_images, cost.fresh_images_gpu) == (2 * 80, 2 * 50_000)  # two generators


def test_fixed_steps_an_epoch_need_no_images():
    method = Method.model_validate(METHOD | {"training": METHOD["training"] | {"epoch_steps": 5}})
    assert estimate(Cell("a", "ascending", 0, method), images=45).steps == 12 * 5


def test_images_that_are_mixed_in_are_not_counted_twice(read):
    digits = "{source: builtin, set: digits, count: 30}"
    union = (
        f"{{source: union, sources: {{x: {digits}, y: {digits}}}, corrupt: {{mixed: {{y: 0.3}}}}}}"
    )
    sweep = read(old="{source: builtin, set: digits}", new=union)
    assert count_images(sweep, expand(sweep)) == {"a": 60, "b": 30}
