"""Losses and penalties against values worked out by hand."""

import math

import pytest
import torch

from featgan.gans.losses import LOSSES, gradient_penalty, top_k_mean, zero_centred_penalty

LOGITS = torch.tensor([-2.0, 0.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("name", "real", "fake", "generator"),
    [
        (
            "non-saturating",
            [math.log(1 + math.exp(-x)) for x in (-2, 0, 0.5, 3)],
            [math.log(1 + math.exp(x)) for x in (-2, 0, 0.5, 3)],
            [math.log(1 + math.exp(-x)) for x in (-2, 0, 0.5, 3)],
        ),
        ("hinge", [3, 1, 0.5, 0], [0, 1, 1.5, 4], [2, 0, -0.5, -3]),
        ("wasserstein", [2, 0, -0.5, -3], [-2, 0, 0.5, 3], [2, 0, -0.5, -3]),
        (  # of differences of two logits, which have one loss for both
            "relativistic",
            [math.log(1 + math.exp(-x)) for x in (-2, 0, 0.5, 3)],
            [0, 0, 0, 0],
            [math.log(1 + math.exp(-x)) for x in (-2, 0, 0.5, 3)],
        ),
    ],
)
def test_losses_by_image(name, real, fake, generator):
    loss = LOSSES[name]
    assert loss.real(LOGITS).tolist() == pytest.approx(real)
    assert loss.fake(LOGITS).tolist() == pytest.approx(fake)
    assert loss.generator(LOGITS).tolist() == pytest.approx(generator)


def test_the_wasserstein_loss_alone_has_the_gradient_penalty():
    assert {name: loss.gradient_penalty for name, loss in LOSSES.items()} == {
        "non-saturating": 0,
        "hinge": 0,
        "wasserstein": 10,
        "relativistic": 0,
    }
    assert [name for name, loss in LOSSES.items() if loss.paired] == ["relativistic"]


def quadratic(images):
    """Half the squared norm: its gradient is the image itself."""
    return images.square().flatten(1).sum(dim=1) / 2


def single(*pixels):
    """Images [n, 1, 1, 1]."""
    return torch.tensor(pixels)[:, None, None, None]


def test_the_gradient_penalty_is_taken_between_images():
    # Between 0 and 4 at a quarter: 1, slope 1. Between 2 and 6 at a half: 4, slope 4.
    real, fake, shares = single(0.0, 2.0), single(4.0, 6.0), torch.tensor([0.25, 0.5])
    penalty = gradient_penalty(quadratic, real, fake, shares)
    assert penalty.item() == pytest.approx(((1 - 1) ** 2 + (4 - 1) ** 2) / 2)


def test_a_slope_is_the_norm_over_all_pixels():
    image = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1)
    penalty = gradient_penalty(quadratic, image, image, torch.zeros(1))
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    assert zero_centred_penalty(quadratic, image).item() == pytest.approx(25 / 2)


def test_r1_is_half_the_mean_squared_slope():
    assert zero_centred_penalty(quadratic, single(1.0, 3.0)).item() == pytest.approx(
        (1 + 9) / 2 / 2
    )


def test_penalties_reach_the_weights():
    """For D(x) = w x: R1 is w²/2, its derivative w; the gradient penalty's is 2 (|w| - 1)."""
    weight = torch.tensor(3.0, requires_grad=True)
    critic = lambda images: weight * images.flatten()  # noqa: E731
    zero_centred_penalty(critic, single(1.0, 5.0)).backward()
    assert weight.grad.item() == pytest.approx(3)
    weight.grad = None
    gradient_penalty(critic, single(0.0), single(1.0), torch.tensor([0.5])).backward()
    assert weight.grad.item() == pytest.approx(2 * (3 - 1))


def test_the_top_k_mean_leaves_the_others_without_gradient():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    mean = top_k_mean(values, torch.tensor([0.5, -1.0, 3.0, -2.0]), torch.tensor(2))
    assert mean.item() == (1 + 4) / 2
    mean.backward()
    assert values.grad.tolist() == [1 / 2, 0, 1 / 2, 0]
    equal = top_k_mean(values.detach(), torch.zeros(4), torch.tensor(3))
    assert equal.item() == pytest.approx((1 + 2 + 4) / 3)
