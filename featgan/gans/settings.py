"""Settings of the networks, and the loss and optimizer published for each of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from featgan.settings import Settings
from featgan.user_code import choice

Augmentation = Literal["color", "translation", "cutout"]
LossName = Literal["non-saturating", "hinge", "wasserstein", "relativistic"]


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
    burn_in: bool = False
    """Whether R3GAN's schedules, R2 penalty and running average are part of it."""


RECIPES = {
    "dcgan": Recipe("non-saturating", Optimizer(2e-4, 0.5, 0.999, 1)),
    "sngan": Recipe("hinge", Optimizer(2e-4, 0.0, 0.9, 5)),
    "wgan-gp": Recipe("wasserstein", Optimizer(2e-4, 0.0, 0.9, 5)),
    "r3gan": Recipe("relativistic", Optimizer(2e-4, 0.0, 0.9, 1), burn_in=True),
}


CONDITIONAL = ("sngan", "r3gan")
"""Networks with a form that has classes."""


class GanSettings(Settings):
    """The networks, their loss, and methods that stabilise their training."""

    network: Annotated[str, choice(RECIPES)] = "dcgan"
    """`dcgan`, `sngan`, `wgan-gp`, `r3gan`, or a user-defined `module:function` (see
    docs/beyond.md)."""
    conditional: bool = False
    """Generate images of a class, which D compares them with: `sngan` and `r3gan`, of data sets
    whose images all have labels."""
    width: int = Field(64, ge=1, le=1536)
    """Channels of the layer next to the image; deeper layers have multiples. As published: 64 for
    `sngan` and `wgan-gp`, 128 for `dcgan`; for `r3gan` 768, 384 and 96 at 32, 64 and 256 pixels."""
    latent: int = Field(100, ge=1, le=4096)
    """Length of the noise vector that an image is generated from (`sngan`'s and `wgan-gp`'s papers:
    128, `r3gan`'s: 64)."""
    loss: LossName | None = None
    """`non-saturating`, `hinge`, `wasserstein` (with gradient penalty 10), `relativistic` (of pairs
    of a real and a generated image); null: the network's."""
    r1: float = Field(0.0, ge=0)
    """Weight gamma of the R1 penalty on D's gradient at real images; 0: none. `r3gan` needs it, for
    generated images too; published: 0.05 (CIFAR-10), 2 (FFHQ at 64 pixels), 150 (at 256)."""
    ema: float | None = Field(None, ge=0, lt=1)
    """Decay of the generator's running average, which is then scored and saved; 0: none. Null: as
    published (`r3gan`: a half-life that rises to 2.5% of the run; the others: none)."""
    top_k: float = Field(1.0, gt=0, le=1)
    """Share of the generated images, those that D rates highest, that G is updated by in the end;
    it falls from 1, by 1% with each pass over the data set (published: 0.5). 1: all."""
    augment: list[Augmentation] = Field([])
    """DiffAugment's changes to every image that D gets: `color`, `translation`, `cutout`."""


def check(gan: GanSettings) -> None:
    """Raise ValueError if settings of a run do not fit its network."""
    if gan.conditional and gan.network not in CONDITIONAL:
        raise ValueError(
            f"gan.conditional: `{gan.network}` is made without classes; choose "
            f"{' or '.join(CONDITIONAL)}"
        )
    if gan.network == "r3gan" and not gan.r1:
        raise ValueError(
            "gan.r1: `r3gan` needs the weight gamma of its penalties, which depends on the data "
            "(published: 0.05 for CIFAR-10, 2 and 150 for FFHQ at 64 and 256 pixels)"
        )
    if gan.network == "r3gan" and gan.width % 16:
        raise ValueError(
            f"gan.width: {gan.width} does not fit the groups of `r3gan`'s convolutions; give a "
            "multiple of 16"
        )


def recipe(gan: GanSettings) -> Recipe:
    """Return the recipe of the settings' network: of a user-defined one, DCGAN's."""
    return RECIPES.get(gan.network, RECIPES["dcgan"])
