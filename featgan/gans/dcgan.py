"""DCGAN (Radford et al. 2016) for any power-of-two image size from 32 to 256 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featgan.gans.settings import GanSettings


def dcgan(gan: GanSettings, image_size: int) -> tuple[Generator, Discriminator]:
    """Return generator and discriminator; width 128 at 64 pixels is the paper's figure 1."""
    return Generator(gan, image_size), Discriminator(gan, image_size)


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw weights from N(0, 0.02) and scales of batch norm from N(1, 0.02) (section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=random)


def _normalised(
    convolution: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module
) -> list[nn.Module]:
    """Return the layers of a convolution followed by batch norm and an activation."""
    return [convolution, nn.BatchNorm2d(convolution.out_channels), activation]


class FromPoint(nn.ConvTranspose2d):
    """A transposed convolution of one pixel, computed as a matrix product, which is faster."""

    def forward(self, points: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return [n, c_out, k, k], channels last, for [n, c_in, 1, 1]."""
        weight = self.weight.permute(0, 2, 3, 1)
        values = points.flatten(1) @ weight.flatten(1)
        return values.unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class ToPoint(nn.Conv2d):
    """A convolution as large as its input, computed as a matrix product, which is faster."""

    def forward(self, values: Tensor) -> Tensor:
        """Return [n, c_out, 1, 1] for [n, c_in, k, k]."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return (values.permute(0, 2, 3, 1).flatten(1) @ weight.t())[:, :, None, None]


class Generator(nn.Module):
    """Map noise [n, latent] to images [n, 3, S, S] in [-1, 1] (DCGAN, section 3)."""

    def __init__(self, gan: GanSettings, image_size: int) -> None:
        super().__init__()
        channels = gan.width * image_size // 8
        layers = _normalised(FromPoint(gan.latent, channels, 4, bias=False), nn.ReLU(inplace=True))
        while channels > gan.width:
            doubling = nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)
            layers += _normalised(doubling, nn.ReLU(inplace=True))
            channels //= 2
        layers += [nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """Return images [n, 3, S, S] in [-1, 1] for noise [n, latent]."""
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Map images [n, 3, S, S] in [-1, 1] to logits [n], positive for real (DCGAN, section 3)."""

    def __init__(self, gan: GanSettings, image_size: int) -> None:
        super().__init__()
        channels = gan.width
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for _ in range(image_size.bit_length() - 4):  # down to 4×4
            halving = nn.Conv2d(channels, channels * 2, 4, 2, 1, bias=False)
            layers += _normalised(halving, nn.LeakyReLU(0.2, inplace=True))
            channels *= 2
        layers.append(ToPoint(channels, 1, 4, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, *batches: Tensor) -> Tensor:
        """Return the logits [n] of all images of `batches`, which have equal lengths.

        In training, batch norm normalises each batch separately, so that real and generated
        images never share statistics; all other layers run once on all images.
        """
        values = torch.cat(batches) if len(batches) > 1 else batches[0]
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d) and len(batches) > 1:
                values = torch.cat([layer(part) for part in values.chunk(len(batches))])
            else:
                values = layer(values)
        return values.flatten()
