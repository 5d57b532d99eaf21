"""The networks: DCGAN (Radford et al. 2016) for any power-of-two image size from 32 to 256.

A trained generator travels as one safetensors file that carries its own configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.seeds import stream
from featgan.settings import Settings

IMAGE_SIZES = (32, 64, 128, 256)
GENERATOR_FORMAT = "featgan generator 1"


class GanSettings(Settings):
    """The layers of generator and discriminator."""

    network: Literal["dcgan"] = "dcgan"
    """Architecture: `dcgan`."""
    width: int = Field(64, ge=1, le=512)
    """Channels of the layer next to the image; they double with every halving of the size."""
    latent: int = Field(100, ge=1, le=4096)
    """Length of the noise vector that an image is generated from."""


class FromPoint(nn.ConvTranspose2d):
    """A transposed convolution of a single point: a matrix product, and quicker as one."""

    def forward(self, points: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Values [n, c_out, k, k], channels last, from points [n, c_in, 1, 1]."""
        weight = self.weight.permute(0, 2, 3, 1)
        values = points.flatten(1) @ weight.flatten(1)
        return values.unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class ToPoint(nn.Conv2d):
    """A convolution as large as its input: a matrix product, and quicker as one."""

    def forward(self, values: Tensor) -> Tensor:
        """Points [n, c_out, 1, 1] from values [n, c_in, k, k]."""
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return (values.permute(0, 2, 3, 1).flatten(1) @ weight.t())[:, :, None, None]


class Generator(nn.Module):
    """Noise [n, latent] -> images [n, 3, S, S] in [-1, 1] (DCGAN, section 3)."""

    def __init__(self, gan: GanSettings, image_size: int) -> None:
        super().__init__()
        self.gan, self.image_size = gan, image_size
        channels = gan.width * image_size // 8
        layers: list[nn.Module] = [
            FromPoint(gan.latent, channels, 4, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        while channels > gan.width:
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(inplace=True),
            ]
            channels //= 2
        layers += [nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """Images [n, 3, S, S] in [-1, 1] from noise [n, latent]."""
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Images [n, 3, S, S] in [-1, 1] -> logits [n], positive for "real" (DCGAN, section 3)."""

    def __init__(self, gan: GanSettings, image_size: int) -> None:
        super().__init__()
        channels = gan.width
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for _ in range(image_size.bit_length() - 4):  # down to 4×4
            layers += [
                nn.Conv2d(channels, channels * 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(channels * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels *= 2
        layers.append(ToPoint(channels, 1, 4, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, *batches: Tensor) -> Tensor:
        """Logits [n] of all images of `batches`, which have equal lengths.

        In training each batch is normalised by itself, as if it had come alone (real and
        generated images never share their statistics); all else is done for all at once.
        """
        values = torch.cat(batches) if len(batches) > 1 else batches[0]
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d) and len(batches) > 1:
                values = torch.cat([layer(part) for part in values.chunk(len(batches))])
            else:
                values = layer(values)
        return values.flatten()


def build(gan: GanSettings, image_size: int, seed: int) -> tuple[Generator, Discriminator]:
    """Generator and discriminator on the CPU, initial weights a function of `seed` alone.

    Weights from N(0, 0.02), batch norm's scales from N(1, 0.02) (DCGAN, section 4).
    """
    with torch.random.fork_rng(devices=[]):  # the constructors draw weights nobody keeps
        networks = Generator(gan, image_size), Discriminator(gan, image_size)
    for network in networks:
        random = stream(seed, "weights", type(network).__name__)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02, generator=random)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02, generator=random)
    return networks


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they would be saved: uint8, rounded to the nearest step."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def generator_bytes(generator: Generator) -> bytes:
    """A safetensors file of the generator, its configuration in the metadata."""
    about = {"gan": generator.gan.model_dump(), "image_size": generator.image_size}
    metadata = {GENERATOR_FORMAT: json.dumps(about)}  # one entry: several have no fixed order
    weights = {
        name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()
    }
    return save(weights, metadata)


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator of a file that `generator_bytes` made, in eval mode.

    Raises UserError where the file is not one.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise UserError(f"{path}: not a readable generator file ({error})") from error
    if GENERATOR_FORMAT not in metadata:
        raise UserError(f"{path}: not a {GENERATOR_FORMAT!r} file but {[*metadata]}")
    about = json.loads(metadata[GENERATOR_FORMAT])
    with torch.device("meta"):
        generator = Generator(GanSettings(**about["gan"]), about["image_size"])
    generator.load_state_dict(weights, assign=True)
    return generator.to(device).eval()
