"""R3GAN's schedules by hand, and Adam that follows them."""

import pytest
import torch

from featgan.gans.schedules import BurnIn, ScheduledAdam, burn_in, top_k
from featgan.gans.settings import RECIPES, Optimizer

CPU = torch.device("cpu")


def test_the_burn_in_is_a_cosine_that_ends_with_the_run():
    shares = [0, 1 / 3, 1 / 2, 1, 1.5]
    assert [burn_in(share) for share in shares] == pytest.approx([0, 1 / 4, 1 / 2, 1, 1])


@pytest.mark.parametrize(
    ("steps", "rate", "beta2", "gamma"),
    [(0, 2e-4, 0.9, 150.0), (200, 1.25e-4, 0.945, 82.5), (400, 5e-5, 0.99, 15.0)],
)
def test_the_schedules_of_ffhq_at_256_pixels(steps, rate, beta2, gamma):
    schedule = BurnIn(RECIPES["r3gan"].optimizer, 150.0, 400, CPU)
    schedule.follow(steps)
    found = schedule.learning_rate, schedule.beta2, schedule.gamma
    assert [value.item() for value in found] == pytest.approx([rate, beta2, gamma])


def test_the_half_life_of_the_average_rises_from_0():
    schedule = BurnIn(RECIPES["r3gan"].optimizer, 1.0, 400, CPU)
    assert schedule.decay == 0
    schedule.follow(200)
    assert schedule.decay**5 == pytest.approx(1 / 2)  # 2.5% of 400 steps, times 1/2
    schedule.follow(400)
    assert schedule.decay**10 == pytest.approx(1 / 2)


def test_k_falls_by_a_hundredth_in_each_epoch():
    assert [top_k(0.5, epochs, 64) for epochs in (0, 1, 2, 50, 69, 1000)] == [
        64,
        63,
        62,
        38,
        32,
        32,
    ]
    assert top_k(0.1, 1000, 4) == 1


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_a_scheduled_step_is_adams_with_the_rates_of_that_step(beta1):
    random = torch.Generator().manual_seed(0)
    start = torch.randn((4, 3), generator=random)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first = Optimizer(0.1, beta1, 0.9, 1)
    schedule = BurnIn(first, 1.0, 6, CPU)
    scheduled = ScheduledAdam(schedule, [ours], 0.1, (beta1, 0.9))
    adam = torch.optim.Adam([theirs], 0.1, (beta1, 0.9))
    for steps in range(6):
        schedule.follow(steps)
        (group,) = adam.param_groups
        group["lr"], group["betas"] = schedule.learning_rate.item(), (beta1, schedule.beta2.item())
        ours.grad = torch.randn((4, 3), generator=random)
        theirs.grad = ours.grad.clone()
        scheduled.step()
        adam.step()
        torch.testing.assert_close(ours, theirs)
