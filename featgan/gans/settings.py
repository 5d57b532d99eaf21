"""Settings of the networks, and the loss and optimizer published for each of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from featgan.settings import Settings
from featgan.user_code import choice

Augmentation = Literal["color", "translation", "cutout"]
LossName = Literal["non-saturating", "hinge", "wasserstein"]


@dataclass(frozen=True)
class Optimizer:
    """Adam's settings, for both networks, and how often D is updated."""

    learning_rate: float
    beta1: float
    beta2: float
    d_steps: int
    """Updates of D for each update of G."""


@dataclass(frozen=True)
class Recipe:
    """The loss and optimizer that a GAN's authors published with its networks."""

    loss: LossName
    optimizer: Optimizer


RECIPES = {
    "dcgan": Recipe("non-saturating", Optimizer(2e-4, 0.5, 0.999, 1)),
    "sngan": Recipe("hinge", Optimizer(2e-4, 0.0, 0.9, 5)),
    "wgan-gp": Recipe("wasserstein", Optimizer(2e-4, 0.0, 0.9, 5)),
}


class GanSettings(Settings):
    """The networks, their loss, and methods that stabilise their training."""

    network: Annotated[str, choice(RECIPES)] = "dcgan"
    """`dcgan`, `sngan`, `wgan-gp`, or a user-defined `module:function` (see docs/beyond.md)."""
    width: int = Field(64, ge=1, le=512)
    """Channels of the layer next to the image; deeper layers have multiples. As published: 64 for
    the ResNets, 128 for `dcgan`."""
    latent: int = Field(100, ge=1, le=4096)
    """Length of the noise vector that an image is generated from (the ResNets' papers: 128)."""
    loss: LossName | None = None
    """`non-saturating`, `hinge`, `wasserstein` (with gradient penalty 10); null: the network's."""
    r1: float = Field(0.0, ge=0)
    """Weight gamma of the R1 penalty on D's gradient at real images; 0: none."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the generator's running average, which is then scored and saved; 0: none."""
    augment: list[Augmentation] = Field([])
    """DiffAugment's changes to every image that D gets: `color`, `translation`, `cutout`."""


def recipe(gan: GanSettings) -> Recipe:
    """Return the recipe of the settings' network: of a user-defined one, DCGAN's."""
    return RECIPES.get(gan.network, RECIPES["dcgan"])
