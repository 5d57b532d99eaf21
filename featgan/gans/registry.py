"""Which networks play, chosen by name, and the file that a trained generator travels in.

The registry says of each published GAN what it is made of: networks, loss and optimizer. A
user's own `module:function` stands in for the networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.gans import dcgan, resnet
from featgan.gans.augment import Augmentation
from featgan.seeds import derive, stream
from featgan.settings import Settings
from featgan.user_code import blamed, choice, resolve

IMAGE_SIZES = (32, 64, 128, 256)
GENERATOR_FORMAT = "featgan generator 1"

LossName = Literal["non-saturating", "hinge", "wasserstein"]
Networks = Callable[["GanSettings", int], tuple[nn.Module, nn.Module]]
"""Generator (noise [n, latent] -> images [n, 3, S, S] in [-1, 1]) and discriminator (images ->
logits [n]) for settings and image size S."""


@dataclass(frozen=True)
class Optimizer:
    """Adam's settings, for both networks, and how often D is updated."""

    learning_rate: float
    beta1: float
    beta2: float
    d_steps: int
    """Updates of D for each one of G."""


@dataclass(frozen=True)
class Recipe:
    """A GAN as its authors published it."""

    networks: Networks
    loss: LossName
    optimizer: Optimizer
    initialise: Callable[[nn.Module, torch.Generator], None] | None = None
    """Draws a network's initial weights; None: its constructor has."""


RECIPES = {
    "dcgan": Recipe(
        dcgan.dcgan, "non-saturating", Optimizer(2e-4, 0.5, 0.999, 1), dcgan.initialise
    ),
    "sngan": Recipe(resnet.sngan, "hinge", Optimizer(2e-4, 0.0, 0.9, 5)),
    "wgan-gp": Recipe(resnet.wgan_gp, "wasserstein", Optimizer(2e-4, 0.0, 0.9, 5)),
}


class GanSettings(Settings):
    """The networks, their loss, and what steadies them."""

    network: Annotated[str, choice(RECIPES)] = "dcgan"
    """`dcgan`, `sngan`, `wgan-gp`, or your own `module:function` (see docs/beyond.md)."""
    width: int = Field(64, ge=1, le=512)
    """Channels of the layer next to the image, multiplied deeper inside. As published: 64 for the
    ResNets, 128 for `dcgan`."""
    latent: int = Field(100, ge=1, le=4096)
    """Length of the noise vector that an image is generated from (the ResNets' papers: 128)."""
    loss: LossName | None = None
    """`non-saturating`, `hinge`, `wasserstein` (with gradient penalty 10); null: the network's."""
    r1: float = Field(0.0, ge=0)
    """Weight gamma of the R1 penalty on D's slope at real images; 0: none."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the generator's running average, which is then scored and saved; 0: none."""
    augment: list[Augmentation] = Field([])
    """DiffAugment's changes to whatever D sees: color, translation, cutout."""


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


def recipe(gan: GanSettings) -> Recipe:
    """What the settings' network is made of; of a user's own, all but the networks is DCGAN's.

    Raises UserError where there is no such function.
    """
    if gan.network in RECIPES:
        return RECIPES[gan.network]
    own: Networks = resolve(gan.network, {})
    return replace(RECIPES["dcgan"], networks=partial(_tried, own), initialise=None)


def build(gan: GanSettings, image_size: int, seed: int) -> tuple[Generator, nn.Module]:
    """Generator and discriminator on the CPU, initial weights a function of `seed` alone.

    Raises UserError where a user's own networks fail, or do not fit together.
    """
    chosen = recipe(gan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "networks"))
        generator, discriminator = chosen.networks(gan, image_size)
    if chosen.initialise:
        for network in (generator, discriminator):
            chosen.initialise(network, stream(seed, "weights", type(network).__name__))
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
    if gan.network not in {*RECIPES, *networks}:
        raise UserError(
            f"{path}: made by {gan.network!r}, code that is imported only if you name it: "
            f"--network {gan.network}"
        )
    known = gan.network in RECIPES
    with torch.random.fork_rng(devices=[]), torch.device("meta" if known else "cpu"):
        generator, _ = recipe(gan).networks(gan, image_size)
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
    with blamed(gan.network):
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
