"""The residual networks of WGAN-GP (Gulrajani et al. 2017) and SNGAN (Miyato et al. 2018).

Both papers use the same blocks; they differ in channels, in pooling before the last layer, and
in how the discriminator is regularised. With `width` 64 they have the published channels: at 32
pixels those of the CIFAR-10 tables (WGAN-GP's appendix, SNGAN's table 4), at 128 those of
SNGAN's table 6. Its rule (halve the size, double the channels, at most 16 times the width)
also gives its table 5 and, for both networks, 64 and 256 pixels.
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


def sngan(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """Return SNGAN's pair: spectral norm in every layer of D, sums over pixels."""
    generator, discriminator = _pair(gan, image_size, 4, torch.sum)
    for layer in [*discriminator.modules()]:
        # On the meta device a power iteration is not needed, and would import for seconds.
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            spectral_norm(layer)
    return generator, discriminator


def wgan_gp(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """Return WGAN-GP's pair: a critic without normalisation, means over pixels."""
    return _pair(gan, image_size, 2, torch.mean)


def _pair(
    gan: GanSettings, image_size: int, cifar_factor: int, pool: Pool
) -> tuple[Generator, Discriminator]:
    """Return both networks; at 32 pixels the generator has `cifar_factor` times the width."""
    halvings = image_size.bit_length() - 3  # from S×S down to 4×4
    if image_size == 32:
        rising, falling = [cifar_factor] * (halvings + 1), [2] * 4
        halved = 2  # CIFAR's discriminators end at 8×8
    else:
        falling = [min(WIDEST, 2**number) for number in range(halvings + 1)]
        rising, halved = [*falling[::-1]], halvings
    generator = Generator(gan.latent, [gan.width * times for times in rising])
    discriminator = Discriminator([gan.width * times for times in falling], halved, pool)
    return generator, discriminator


class Up(nn.Module):
    """A block of the generator: [n, inputs, s, s] -> [n, outputs, 2s, 2s]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            _conv(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            _conv(outputs, outputs),
        )
        # The papers upsample before the pointwise convolution: the same result for 4 times the
        # work. So does pooling after one in the discriminator.
        self.shortcut = nn.Sequential(_pointwise(inputs, outputs), nn.Upsample(scale_factor=2))

    def forward(self, values: Tensor) -> Tensor:
        """Return the sum of residual and shortcut."""
        return self.residual(values) + self.shortcut(values)


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

    def __init__(self, latent: int, channels: list[int]) -> None:
        super().__init__()
        self.dense = _glorot(nn.Linear(latent, channels[0] * 16))
        self.layers = nn.Sequential(
            *(Up(*pair) for pair in pairwise(channels)),
            nn.BatchNorm2d(channels[-1]),
            nn.ReLU(inplace=True),
            _glorot(nn.Conv2d(channels[-1], 3, 3, padding=1)),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Return images [n, 3, S, S] in [-1, 1] for noise [n, latent]."""
        return self.layers(self.dense(noise).unflatten(1, (-1, 4, 4)))


class Discriminator(nn.Module):
    """Map images [n, 3, S, S] to logits [n]; the first `halved` blocks halve the size."""

    def __init__(self, channels: list[int], halved: int, pool: Pool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                Down(inputs, outputs, halve=number < halved, first=number == 0)
                for number, (inputs, outputs) in enumerate(pairwise([3, *channels]))
            ),
            nn.ReLU(inplace=True),
        )
        self.dense = _glorot(nn.Linear(channels[-1], 1))
        self.pool = pool

    def forward(self, *batches: Tensor) -> Tensor:
        """Return the logits [n] of all images of `batches`; they do not depend on each other."""
        values = self.layers(torch.cat(batches))
        return self.dense(self.pool(values, dim=(2, 3))).flatten()


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution that precedes an activation."""
    return _glorot(nn.Conv2d(inputs, outputs, 3, padding=1), gain=math.sqrt(2))


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return _glorot(nn.Conv2d(inputs, outputs, 1))


def _glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialise as both papers' code: uniform, with variance 2 gain² / (fan in + fan out)."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
