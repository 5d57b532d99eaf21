"""Settings of stages and pacing, and the names of modes and criteria."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from featgan.settings import Settings
from featgan.user_code import choice

MODE_NAMES = ("descending", "ascending", "conventional", "middle_out", "random")
CRITERION_NAMES = ("peak", "smoothed_peak", "patience", "plateau", "fixed")
NEEDS_NO_HISTORY = ("peak", "patience", "plateau", "fixed")
"""Criteria whose peak is the current evaluation or the previous peak: no other models are kept."""
SCORE = "score"


class StageSettings(Settings):
    """How stages follow each other."""

    change: Literal["add", "replace"] = "add"
    """What the next group does: it is added (the paper's), or takes the place of the ones before
    (to tell the effect of growing from that of order)."""
    criterion: Annotated[str, choice(CRITERION_NAMES)] = "peak"
    """When a stage ends, and which evaluation is its peak: `peak` (the paper's), `smoothed_peak`,
    `patience`, `plateau`, `fixed`, or `module:function`."""
    watch: str = SCORE
    """What the criterion looks at: `score`, or a further metric of `score.metrics`."""
    window: int = Field(5, ge=1)
    """Evaluations that `smoothed_peak` and `plateau` take the mean of; an odd number."""
    patience: int = Field(20, ge=1)
    """Evaluations without a new best after which `patience` ends a stage."""
    rewind: bool = True
    """Whether the next stage starts from the peak's model (the paper's), or goes on from the
    stage's last."""

    @property
    def looks_back(self) -> int:
        """How many evaluations before the newest may still become a stage's peak."""
        return 0 if self.criterion in NEEDS_NO_HISTORY else self.window // 2

    @property
    def models_kept(self) -> int:
        """Models a run keeps at most: the peak's, and those that may become it."""
        return 1 + self.looks_back

    @field_validator("window")
    @classmethod
    def _has_a_middle(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("must be odd, so that it has a middle")
        return window


class PacingSettings(Settings):
    """Whether images of one end of the order count for more at first."""

    by: Literal["none", "sampling", "loss"] = "none"
    """`none` (the paper's), `sampling` (they are drawn more often) or `loss` (they weigh more in
    the discriminator's loss)."""
    first: Literal["low", "high"] = "low"
    """Which images are favoured at first: those of `low` or of `high` image scores."""
    decay: float = Field(5.0, gt=0, le=1000)
    """How fast the favour fades: after a share t of the run it is exp(-decay · t) of the first."""
