"""The residual networks of WGAN-GP (Gulrajani et al. 2017) and SNGAN (Miyato et al. 2018).

Both papers use the same blocks; they differ in channels, in pooling before the last layer, and
in how the discriminator is regularised. With `width` 64 they have the published channels: at 32
pixels those of the CIFAR-10 tables (WGAN-GP's appendix, SNGAN's table 4), at 128 those of
SNGAN's table 6. Its rule (halve the size, double the channels, at most 16 times the width)
also gives its table 5 and, for both networks, 64 and 256 pixels.

With classes, SNGAN's networks are those of Miyato and Koyama 2018: batch norm by class in the
generator, and a projection in the discriminator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from featgan.gans.settings import GanSettings

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
Pool = Callable[..., Tensor]
"""`torch.sum` or `torch.mean`, over all pixels of [n, c, s, s]."""

WIDEST = 16
"""Most channels of a layer, as a multiple of the width."""


def sngan(gan: GanSettings, image_size: int, classes: int = 0) -> tuple[Generator, Discriminator]:
    """Return SNGAN's pair: spectral norm in every layer of D, sums over pixels."""
    generator, discriminator = _pair(gan, image_size, 4, torch.sum, classes)
    for layer in [*discriminator.modules()]:
        # On the meta device a power iteration is not needed, and would import for seconds.
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            spectral_norm(layer)
    return generator, discriminator


def wgan_gp(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """Return WGAN-GP's pair: a critic without normalisation, means over pixels."""
    return _pair(gan, image_size, 2, torch.mean)


def _pair(
    gan: GanSettings, image_size: int, cifar_factor: int, pool: Pool, classes: int = 0
) -> tuple[Generator, Discriminator]:
    """Return both networks; at 32 pixels the generator has `cifar_factor` times the width."""
    halvings = image_size.bit_length() - 3  # from S×S down to 4×4
    if image_size == 32:
        rising, falling = [cifar_factor] * (halvings + 1), [2] * 4
        halved = 2  # CIFAR's discriminators end at 8×8
    else:
        falling = [min(WIDEST, 2**number) for number in range(halvings + 1)]
        rising, halved = [*falling[::-1]], halvings
    generator = Generator(gan.latent, [gan.width * times for times in rising], classes)
    discriminator = Discriminator([gan.width * times for times in falling], halved, pool, classes)
    return generator, discriminator


class ClassNorm(nn.Module):
    """Batch norm with a scale and a shift for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(torch.ones(classes, channels))
        self.shift = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, values: Tensor, classes: Tensor) -> Tensor:
        """Return values [n, c, s, s], scaled and shifted by their `classes` [n, classes]."""
        # Not rounded to bf16, like the scale and shift of batch norm itself.
        with torch.autocast(values.device.type, enabled=False):
            scale, shift = classes @ self.scale, classes @ self.shift
        return self.norm(values) * scale[:, :, None, None] + shift[:, :, None, None]


class Up(nn.Module):
    """A block of the generator: [n, inputs, s, s] -> [n, outputs, 2s, 2s]."""

    def __init__(self, inputs: int, outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _norm(inputs, classes),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            _conv(inputs, outputs),
            _norm(outputs, classes),
            nn.ReLU(inplace=True),
            _conv(outputs, outputs),
        )
        # The papers upsample before the pointwise convolution: the same result for 4 times the
        # work. So does pooling after one in the discriminator.
        self.shortcut = nn.Sequential(_pointwise(inputs, outputs), nn.Upsample(scale_factor=2))

    def forward(self, values: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the sum of residual and shortcut."""
        return _through(self.residual, values, classes) + self.shortcut(values)


class Down(nn.Module):
    """A block of the discriminator: [n, inputs, s, s] -> [n, outputs, s/2, s/2].

    The size stays s unless `halve`. The `first` block has no activation in front, and its first
    convolution already has all output channels.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, first: bool) -> None:
        super().__init__()
        hidden = outputs if first else inputs
        self.residual = nn.Sequential(
            nn.Identity() if first else nn.ReLU(),
            _conv(inputs, hidden),
            nn.ReLU(inplace=True),
            _conv(hidden, outputs),
            nn.AvgPool2d(2) if halve else nn.Identity(),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2) if halve else nn.Identity(),
            _pointwise(inputs, outputs) if halve or inputs != outputs else nn.Identity(),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Return the sum of residual and shortcut."""
        return self.residual(values) + self.shortcut(values)


class Generator(nn.Module):
    """Map noise [n, latent] to images [n, 3, S, S] in [-1, 1]; a block per pair of channels."""

    def __init__(self, latent: int, channels: list[int], classes: int = 0) -> None:
        super().__init__()
        self.latent = latent
        self.dense = _glorot(nn.Linear(latent, channels[0] * 16))
        self.layers = nn.Sequential(
            *(Up(*pair, classes) for pair in pairwise(channels)),
            nn.BatchNorm2d(channels[-1]),
            nn.ReLU(inplace=True),
            _glorot(nn.Conv2d(channels[-1], 3, 3, padding=1)),
            nn.Tanh(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return images [n, 3, S, S] in [-1, 1] for noise [n, latent], or noise and classes."""
        values = self.dense(inputs[:, : self.latent]).unflatten(1, (-1, 4, 4))
        return _through(self.layers, values, inputs[:, self.latent :])


class Discriminator(nn.Module):
    """Map images [n, 3, S, S] to logits [n]; the first `halved` blocks halve the size."""

    def __init__(self, channels: list[int], halved: int, pool: Pool, classes: int = 0) -> None:
        super().__init__()
        self.embedding = _glorot(nn.Linear(classes, channels[-1], bias=False)) if classes else None
        self.layers = nn.Sequential(
            *(
                Down(inputs, outputs, halve=number < halved, first=number == 0)
                for number, (inputs, outputs) in enumerate(pairwise([3, *channels]))
            ),
            nn.ReLU(inplace=True),
        )
        self.dense = _glorot(nn.Linear(channels[-1], 1))
        self.pool = pool

    def forward(self, *batches: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the logits [n] of all images of `batches`; they do not depend on each other.

        `classes` [m, classes] are those of the first m images, and of all others in turn.
        """
        values = self.pool(self.layers(torch.cat(batches)), dim=(2, 3))
        logits = self.dense(values).flatten()
        if self.embedding is not None and classes is not None:
            repeated = self.embedding(classes).repeat(len(values) // len(classes), 1)
            logits = logits + (values * repeated).sum(dim=1)
        return logits


def _norm(channels: int, classes: int) -> nn.Module:
    return ClassNorm(channels, classes) if classes else nn.BatchNorm2d(channels)


def _through(layers: nn.Sequential, values: Tensor, classes: Tensor | None) -> Tensor:
    """Return values after all layers, of which some depend on the classes."""
    for layer in layers:
        values = layer(values, classes) if isinstance(layer, ClassNorm | Up) else layer(values)
    return values


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution that precedes an activation."""
    return _glorot(nn.Conv2d(inputs, outputs, 3, padding=1), gain=math.sqrt(2))


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return _glorot(nn.Conv2d(inputs, outputs, 1))


def _glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialise as both papers' code: uniform, with variance 2 gain² / (fan in + fan out)."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
