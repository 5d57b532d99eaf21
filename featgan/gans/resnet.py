"""The residual networks of WGAN-GP (Gulrajani et al. 2017) and SNGAN (Miyato et al. 2018).

Both papers use the same blocks; they differ in channels, in pooling before the last layer, and
in what keeps the discriminator smooth. With `width` 64 they have the published channels: at 32
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
"""`torch.sum` or `torch.mean`, over all places of [n, c, s, s]."""

WIDEST = 16
"""Most channels of a layer, as a multiple of the width."""


def sngan(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """SNGAN's pair: spectral norm in every layer of the discriminator, sums over places."""
    generator, discriminator = _pair(gan, image_size, 4, torch.sum)
    for layer in [*discriminator.modules()]:
        # Where only shapes are asked for, a power iteration would import for seconds.
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
            spectral_norm(layer)
    return generator, discriminator


def wgan_gp(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """WGAN-GP's pair: a critic without any normalisation, means over places."""
    return _pair(gan, image_size, 2, torch.mean)


def _pair(
    gan: GanSettings, image_size: int, of_cifar: int, pool: Pool
) -> tuple[Generator, Discriminator]:
    """Both networks; at 32 pixels the generator's channels are `of_cifar` times the width."""
    halvings = image_size.bit_length() - 3  # from S×S down to 4×4
    if image_size == 32:
        rising, falling = [of_cifar] * (halvings + 1), [2] * 4
        halved = 2  # CIFAR's discriminators end at 8×8
    else:
        falling = [min(WIDEST, 2**number) for number in range(halvings + 1)]
        rising, halved = [*falling[::-1]], halvings
    generator = Generator(gan.latent, [gan.width * times for times in rising])
    discriminator = Discriminator([gan.width * times for times in falling], halved, pool)
    return generator, discriminator


class Up(nn.Module):
    """A generator's block: [n, inputs, s, s] -> [n, outputs, 2s, 2s]."""

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
        # Upsampling before a pointwise convolution, as published, gives the same for 4 times
        # the work; so does pooling after one in the discriminator.
        self.shortcut = nn.Sequential(_pointwise(inputs, outputs), nn.Upsample(scale_factor=2))

    def forward(self, values: Tensor) -> Tensor:
        """Residual and shortcut added."""
        return self.residual(values) + self.shortcut(values)


class Down(nn.Module):
    """A discriminator's block: [n, inputs, s, s] -> [n, outputs, s/2, s/2], or s with no halving.

    The `first` one has no activation in front, and widens at once.
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
        """Residual and shortcut added."""
        return self.residual(values) + self.shortcut(values)


class Generator(nn.Module):
    """Noise [n, latent] -> images [n, 3, S, S] in [-1, 1]; a block for each pair of channels."""

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
        """Images [n, 3, S, S] in [-1, 1] from noise [n, latent]."""
        return self.layers(self.dense(noise).unflatten(1, (-1, 4, 4)))


class Discriminator(nn.Module):
    """Images [n, 3, S, S] -> logits [n]; the first `halved` of its blocks halve the size."""

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
        """Logits [n] of all images of `batches`; no image's logit depends on another."""
        values = self.layers(torch.cat(batches))
        return self.dense(self.pool(values, dim=(2, 3))).flatten()


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution before an activation."""
    return _glorot(nn.Conv2d(inputs, outputs, 3, padding=1), gain=math.sqrt(2))


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return _glorot(nn.Conv2d(inputs, outputs, 1))


def _glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Initial weights as in both papers' code: uniform, of variance 2 gain² / (fan in + out)."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
