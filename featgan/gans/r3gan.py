"""The networks of R3GAN (Huang et al. 2024): residual, and without any normalisation.

Written from the paper and its published code. With `width` 768, 384 and 96 at 32, 64 and 256
pixels they are the authors' for CIFAR-10, FFHQ-64 and FFHQ-256, and with 1536 at 32 pixels that
for ImageNet-32: all channels up to 32 pixels are alike, and halve with each doubling beyond.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from featgan.gans.settings import GanSettings

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

BLOCKS = 2
"""Residual blocks at each size."""
SLOPE = 0.2
"""Of the leaky ReLUs at negative values."""


def r3gan(gan: GanSettings, image_size: int, classes: int = 0) -> tuple[Generator, Discriminator]:
    """Return R3GAN's pair; `gan.width` is a multiple of 16."""
    sizes = [2**power for power in range(2, image_size.bit_length())]
    channels = [gan.width * image_size // max(size, 32) for size in sizes]
    return Generator(gan.latent, channels, classes), Discriminator(channels[::-1], classes)


class Generator(nn.Module):
    """Map noise [n, latent] to images [n, 3, S, S]; `channels` from 4×4 to S×S.

    A class has an embedding as long as the noise, which is appended to it. As published, nothing
    limits the images to [-1, 1].
    """

    def __init__(self, latent: int, channels: list[int], classes: int = 0) -> None:
        super().__init__()
        blocks, self.latent = BLOCKS * len(channels), latent
        self.embedding = _scaled(nn.Linear(classes, latent, bias=False)) if classes else None
        self.basis = nn.Parameter(torch.randn(channels[0], 4, 4))
        length = 2 * latent if classes else latent
        self.dense = _scaled(nn.Linear(length, channels[0], bias=False))
        layers = _residuals(channels[0], blocks)
        for inputs, outputs in pairwise(channels):
            layers += [*_change(inputs, outputs), up(), *_residuals(outputs, blocks)]
        self.layers = nn.Sequential(*layers, _pointwise(channels[-1], 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return images [n, 3, S, S] for noise [n, latent], or noise and classes."""
        if self.embedding is not None:
            classes = self.embedding(inputs[:, self.latent :])
            inputs = torch.cat((inputs[:, : self.latent], classes), dim=1)
        return self.layers(self.basis * self.dense(inputs)[:, :, None, None])


class Discriminator(nn.Module):
    """Map images [n, 3, S, S] to logits [n]; `channels` from S×S to 4×4.

    With classes a logit is the product of the last features with the class's embedding.
    """

    def __init__(self, channels: list[int], classes: int = 0) -> None:
        super().__init__()
        blocks, features = BLOCKS * len(channels), channels[-1] if classes else 1
        gain = 1 / math.sqrt(features)
        self.embedding = (
            _scaled(nn.Linear(classes, features, bias=False), gain) if classes else None
        )
        layers = [_pointwise(3, channels[0]), *_residuals(channels[0], blocks)]
        for inputs, outputs in pairwise(channels):
            layers += [down(), *_change(inputs, outputs), *_residuals(outputs, blocks)]
        self.layers = nn.Sequential(*layers)
        self.basis = nn.Parameter(torch.randn(channels[-1], 4, 4) / 4)
        self.dense = _scaled(nn.Linear(channels[-1], features, bias=False))

    def forward(self, *batches: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the logits [n] of all images of `batches`; they do not depend on each other.

        `classes` [m, classes] are those of the first m images, and of all others in turn.
        """
        values = self.layers(torch.cat(batches))
        logits = self.dense((values * self.basis).sum(dim=(2, 3)))
        if self.embedding is not None and classes is not None:
            repeated = self.embedding(classes).repeat(len(logits) // len(classes), 1)
            logits = (logits * repeated).sum(dim=1)
        return logits.flatten()


class Residual(nn.Module):
    """A block [n, c, s, s] -> [n, c, s, s] that returns its input at first.

    The 3×3 convolution has groups of 16 channels, or of 32 in networks as wide as ImageNet's.
    Fixup (Zhang et al. 2019): the last layer begins at 0, and a network of m `blocks` divides the
    standard deviation of the two layers before by the fourth root of m.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        inner, gain = 2 * channels, math.sqrt(2 / (1 + SLOPE**2)) * blocks**-0.25
        groups = inner // (16 if channels <= 768 else 32)
        self.layers = nn.Sequential(
            _scaled(nn.Conv2d(channels, inner, 1), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            _scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            _scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Return the sum of input and residual."""
        return values + self.layers(values)


def up() -> nn.Sequential:
    """Return layers that double the size, bilinearly, with zeros around.

    Nearest neighbours, then two box filters, are the published filter [1, 3, 3, 1]; PyTorch's
    bilinear interpolation has no deterministic gradient on a GPU.
    """
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2, 1, 1), nn.AvgPool2d(2, 1))


def down() -> nn.Sequential:
    """Return layers that halve the size by the filter [1, 3, 3, 1]: three box filters."""
    return nn.Sequential(nn.AvgPool2d(2, 1, 1), nn.AvgPool2d(2, 1), nn.AvgPool2d(2))


def _residuals(channels: int, blocks: int) -> list[nn.Module]:
    """Return the blocks of one size, of `blocks` in the whole network."""
    return [Residual(channels, blocks) for _ in range(BLOCKS)]


def _change(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a pointwise convolution where the number of channels changes."""
    return [_pointwise(inputs, outputs)] if inputs != outputs else []


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return _scaled(nn.Conv2d(inputs, outputs, 1, bias=False))


def _scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialise with standard deviation gain / √(fan in), and biases of 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
