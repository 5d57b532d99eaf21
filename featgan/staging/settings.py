"""Settings of stages and pacing, and the names of criteria."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from featgan.settings import Settings
from featgan.user_code import choice

CRITERION_NAMES = ("peak", "smoothed_peak", "patience", "plateau", "fixed")
NEEDS_NO_HISTORY = ("peak", "patience", "plateau", "fixed")
"""Criteria whose peak is the current evaluation or the previous peak: no other models are kept."""
SCORE = "score"
Rank = Literal["none", "discriminator_output", "discriminator_loss"]
Growth = Literal["none", "linear", "quadratic", "root", "exponential", "logarithmic", "step"]


class StageSettings(Settings):
    """The sequence of stages."""

    change: Literal["add", "replace"] = "add"
    """`add` (the paper's): a stage adds its group to those before; `replace`: it trains on its
    group alone, to separate the effect of growing data from that of their order."""
    criterion: Annotated[str, choice(CRITERION_NAMES)] = "peak"
    """The rule that ends a stage and chooses the evaluation that is its peak: `peak` (the
    paper's), `smoothed_peak`, `patience`, `plateau`, `fixed`, or `module:function`."""
    watch: str = SCORE
    """The number that the criterion reads: `score`, or one that `score.metrics` reports."""
    window: int = Field(5, ge=1)
    """Number of evaluations in the means of `smoothed_peak` and `plateau`; an odd number."""
    patience: int = Field(20, ge=1)
    """Number of evaluations without a new best after which `patience` ends a stage."""
    rewind: bool = True
    """true (the paper's): the next stage starts from the model at the peak; false: from the last
    model of the stage."""
    rank: Rank = "none"
    """`none` (the paper's): the groups stay. Else, before each further stage, images are ordered
    by what D, as it is then, gives for them: `discriminator_output`, or `discriminator_loss`. For
    modes `ascending` and `descending`; with `add` the images not used yet, with `replace` all."""

    @property
    def looks_back(self) -> int:
        """Evaluations before the current one that may still become the stage's peak."""
        return 0 if self.criterion in NEEDS_NO_HISTORY else self.window // 2

    @field_validator("window")
    @classmethod
    def _is_odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("must be odd, so that it has a middle")
        return window


class PacingSettings(Settings):
    """Weights of the images at the start of training by their order, or data that grow in it."""

    by: Literal["none", "sampling", "loss"] = "none"
    """`none` (the paper's), `sampling` (some images are drawn more often) or `loss` (some weigh
    more in the discriminator's loss)."""
    first: Literal["low", "high"] = "low"
    """The images that weigh more at the start: those with `low` or with `high` values."""
    decay: float = Field(5.0, gt=0, le=1000)
    """Rate at which weights become equal: after a share t of the run, exp(-decay · t) of the
    difference is left."""
    grow: Growth = "none"
    """Instead of weights, growing data: `linear`, `quadratic`, `root`, `exponential`,
    `logarithmic` or `step` (Wu et al. 2021). For conventional runs with `training.epoch_steps`."""
    a: float = Field(0.5, gt=0, le=10)
    """For `grow`: share of the run after which all images are trained on."""
    b: float = Field(0.2, gt=0, le=1)
    """For `grow`: share of the images that are trained on from the start."""
    order: Literal["ascending", "descending", "random"] = "ascending"
    """For `grow`: the images that come first, those with low values (`ascending`) or with high
    ones; or `random`, drawn for each seed, the control."""

    @model_validator(mode="after")
    def _weights_or_growth(self) -> Self:
        if self.grow != "none" and self.by != "none":
            raise ValueError("grow and by exclude each other; set one of them to none")
        return self
