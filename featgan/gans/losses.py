"""Losses of discriminator and generator: pure functions of logits and gradients.

A loss is three functions from logits [n] to values [n], one for each image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class Loss:
    """The loss of a GAN, as functions from logits [n] to values [n]."""

    real: Callable[[Tensor], Tensor]
    """D's loss on real images."""
    fake: Callable[[Tensor], Tensor]
    """D's loss on generated images."""
    generator: Callable[[Tensor], Tensor]
    """G's loss on generated images."""
    paired: bool = False
    """Whether a logit is taken relative to that of the other image of a pair, a real and a
    generated one, before these functions."""
    gradient_penalty: float = 0.0
    """Weight of the function `gradient_penalty` in D's loss."""


def _cross_entropy(logits: Tensor) -> Tensor:
    """Return -log sigmoid(logits), the cross-entropy of images that should be rated as real."""
    return softplus(-logits)


LOSSES = {
    # Two cross-entropies (Goodfellow et al. 2014, section 3).
    "non-saturating": Loss(real=_cross_entropy, fake=softplus, generator=_cross_entropy),
    # Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17.
    "hinge": Loss(real=lambda x: relu(1 - x), fake=lambda x: relu(1 + x), generator=torch.neg),
    # Gulrajani et al. 2017, equation 3.
    "wasserstein": Loss(torch.neg, torch.positive, torch.neg, gradient_penalty=10.0),
    # Jolicoeur-Martineau 2019; Huang et al. 2024, equation 2: one term for each pair.
    "relativistic": Loss(_cross_entropy, torch.zeros_like, _cross_entropy, paired=True),
}

Discriminator = Callable[..., Any]
"""Logits [n] of images [n, 3, S, S]."""


def gradient_penalty(
    discriminator: Discriminator, real: Tensor, fake: Tensor, shares: Tensor
) -> Tensor:
    """Return WGAN-GP's penalty without its weight (Gulrajani et al. 2017, section 4).

    The mean of (|gradient| - 1)² at points on the lines from real to generated images
    [n, 3, S, S]. `shares` [n] in [0, 1] are the points' positions, 0 at the real image.
    """
    between = torch.lerp(real, fake, shares[:, None, None, None])
    norms = _gradients(discriminator, between).norm(dim=1)
    return (norms - 1).square().mean()


def zero_centred_penalty(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Return R1 without its weight γ (Mescheder et al. 2018, equation 9); of generated images, R2.

    Half the mean squared norm of D's gradient at images [n, 3, S, S]. With batch norm, an
    image's gradient includes its effect on the logits of the others.
    """
    return _gradients(discriminator, images).square().sum(dim=1).mean() / 2


def top_k_mean(values: Tensor, logits: Tensor, k: Tensor) -> Tensor:
    """Return the mean of the values [n] of the `k` images with the highest logits [n].

    The gradient of the others is 0 (Sinha et al. 2020, algorithm 1). `k` is a tensor, and all
    shapes are independent of it, so that it may change in a CUDA graph.
    """
    ranks = logits.argsort(descending=True, stable=True).argsort()
    return torch.where(ranks < k, values, 0.0).sum() / k


def _gradients(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Return differentiable gradients [n, 3 S S] of the logits at `images`."""
    images = images.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradients.flatten(1)
