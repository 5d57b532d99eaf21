"""Which networks play, chosen by name, and the file that a trained generator travels in.

The registry says of each published GAN what it is made of: networks, loss and optimizer. A
user's own `module:function` stands in for the networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.gans import dcgan, resnet
from featgan.gans.settings import GanSettings
from featgan.seeds import derive, stream
from featgan.user_code import resolve, user_code_errors

IMAGE_SIZES = (32, 64, 128, 256)
GENERATOR_FORMAT = "featgan generator 1"

Networks = Callable[[GanSettings, int], tuple[nn.Module, nn.Module]]
"""Generator (noise [n, latent] -> images [n, 3, S, S] in [-1, 1]) and discriminator (images ->
logits [n]) for settings and image size S."""

NETWORKS: dict[str, Networks] = {
    "dcgan": dcgan.dcgan,
    "sngan": resnet.sngan,
    "wgan-gp": resnet.wgan_gp,
}
"""The networks of each recipe of `featgan.gans.settings`."""


class Generator(nn.Module):
    """What `build` and `load_generator` make a generator: it knows what it was built from."""

    gan: GanSettings
    image_size: int


class OneByOne(nn.Module):
    """A user's discriminator, which takes one batch, as ours, which take several at once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batches: Tensor) -> Tensor:
        """Logits [n] of all images of `batches`, each batch by itself."""
        return torch.cat([self.network(batch).flatten() for batch in batches])


def networks_of(gan: GanSettings) -> Networks:
    """Return the function that builds the networks.

    Raises UserError where there is no such user-defined function.
    """
    if gan.network in NETWORKS:
        return NETWORKS[gan.network]
    return partial(_tried, resolve(gan.network, NETWORKS))


def build(gan: GanSettings, image_size: int, seed: int) -> tuple[Generator, nn.Module]:
    """Generator and discriminator on the CPU, initial weights a function of `seed` alone.

    Raises UserError where a user's own networks fail, or do not fit together.
    """
    make = networks_of(gan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "networks"))
        generator, discriminator = make(gan, image_size)
    if gan.network == "dcgan":
        for network in (generator, discriminator):
            dcgan.initialise(network, stream(seed, "weights", type(network).__name__))
    return _labelled(generator, gan, image_size), discriminator


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they would be saved: uint8, rounded to the nearest step."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def generator_bytes(generator: Generator) -> bytes:
    """A safetensors file of the generator, its configuration and a digest in the metadata."""
    about = {"gan": generator.gan.model_dump(), "image_size": generator.image_size}
    weights = {
        name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()
    }
    sealed = about | {"sha256": _digest(about, weights)}
    # one entry: several have no fixed order
    return save(weights, {GENERATOR_FORMAT: json.dumps(sealed)})


def load_generator(
    path: str | Path, device: torch.device | str = "cpu", networks: Collection[str] = ()
) -> Generator:
    """The generator of a file that `generator_bytes` made, in eval mode.

    A file never decides what is imported: where its network is a user's `module:function`, that
    name must be among `networks`. Raises UserError where it is not, or the file is no generator,
    or damaged.
    """
    try:
        gan, image_size, weights = _read(path)
    # safetensors, JSON and pydantic have each their own errors for what is no such file
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable generator file ({reason})") from error
    if gan.network not in {*NETWORKS, *networks}:
        raise UserError(
            f"{path}: made by {gan.network!r}, code that is imported only if you name it: "
            f"--network {gan.network}"
        )
    known = gan.network in NETWORKS
    with torch.random.fork_rng(devices=[]), torch.device("meta" if known else "cpu"):
        generator, _ = networks_of(gan)(gan, image_size)
    try:
        generator.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of {gan.network!r} ({reason})") from error
    return _labelled(generator, gan, image_size).to(device).eval()


def _read(path: str | Path) -> tuple[GanSettings, int, dict[str, Tensor]]:
    """Settings, image size and weights in a generator's file; files of old have no digest."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if GENERATOR_FORMAT not in metadata:
        raise ValueError(f"it is no {GENERATOR_FORMAT!r} but {[*metadata]}")
    about: dict[str, Any] = json.loads(metadata[GENERATOR_FORMAT])
    if about.pop("sha256", None) not in (None, _digest(about, weights)):
        raise ValueError("damaged or edited: the SHA-256 differs")
    if about["image_size"] not in IMAGE_SIZES:
        raise ValueError(f"its image_size is {about['image_size']!r}")
    return GanSettings(**about["gan"]), about["image_size"], weights


def _digest(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    settings = json.dumps(about, sort_keys=True).encode()
    return hashlib.sha256(settings + save(weights)).hexdigest()


def _labelled(generator: nn.Module, gan: GanSettings, image_size: int) -> Any:
    """The generator with what it was built from written on it."""
    vars(generator).update(gan=gan, image_size=image_size)
    return generator


def _tried(own: Networks, gan: GanSettings, size: int) -> tuple[nn.Module, nn.Module]:
    """A user's networks, once they have made and judged two images.

    Raises UserError naming what is wrong.
    """
    with user_code_errors(gan.network):
        generator, discriminator = own(gan, size)
        _check(gan, size, generator.eval(), discriminator.eval())
        return generator.train(), OneByOne(discriminator.train())


def _check(gan: GanSettings, size: int, generator: nn.Module, discriminator: nn.Module) -> None:
    with torch.no_grad():
        images = generator(torch.zeros(2, gan.latent))
        if images.shape != (2, 3, size, size):
            raise UserError(
                f"gan.network: {gan.network}: of 2 noise vectors the generator makes "
                f"{[*images.shape]}, not [2, 3, {size}, {size}]"
            )
        logits = discriminator(images).flatten()
    if logits.shape != (2,):
        raise UserError(
            f"gan.network: {gan.network}: of 2 images the discriminator makes "
            f"{logits.numel()} values, not one logit each"
        )
