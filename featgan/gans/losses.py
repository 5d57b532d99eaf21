"""What discriminator and generator minimise: pure functions of logits, and of gradients.

A loss is three functions of logits [n], each giving a value [n] for every image: D's part for
real images, D's part for generated ones, and G's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class Loss:
    """A game's loss, by image."""

    real: Callable[[Tensor], Tensor]
    """D's part for a real image."""
    fake: Callable[[Tensor], Tensor]
    """D's part for a generated image."""
    generator: Callable[[Tensor], Tensor]
    """G's for a generated image."""
    gradient_penalty: float = 0.0
    """Weight of `gradient_penalty` in D's loss."""


def negative(logits: Tensor) -> Tensor:
    """-x."""
    return -logits


LOSSES = {
    # D and G each minimise a cross-entropy (Goodfellow et al. 2014, section 3).
    "non-saturating": Loss(
        real=lambda logits: softplus(-logits),
        fake=softplus,
        generator=lambda logits: softplus(-logits),
    ),
    # Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17.
    "hinge": Loss(
        real=lambda logits: relu(1 - logits),
        fake=lambda logits: relu(1 + logits),
        generator=negative,
    ),
    # Gulrajani et al. 2017, equation 3.
    "wasserstein": Loss(
        real=negative,
        fake=lambda logits: logits,
        generator=negative,
        gradient_penalty=10.0,
    ),
}

Discriminator = Callable[..., Any]
"""Logits [n] of images [n, 3, S, S]."""


def gradient_penalty(
    discriminator: Discriminator, real: Tensor, fake: Tensor, shares: Tensor
) -> Tensor:
    """Mean of (slope - 1)² between real and generated images (Gulrajani et al. 2017, section 4).

    `shares` [n] in [0, 1] say how far along the line from each real image to its generated one
    the slope is taken.
    """
    between = torch.lerp(real, fake, shares[:, None, None, None])
    slopes = _gradients(discriminator, between).norm(dim=1)
    return (slopes - 1).square().mean()


def r1_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """Half the mean squared slope at real images: R1 without its γ (Mescheder et al. 2018, eq. 9).

    In a discriminator with batch norm the slope also counts what an image does to the others'.
    """
    return _gradients(discriminator, real).square().sum(dim=1).mean() / 2


def _gradients(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Gradients [n, 3 S S] of the logits at `images`, which can be differentiated again."""
    images = images.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradients.flatten(1)
