"""The base of every settings class, and the settings of training.

A settings class is frozen, strict and closed to unknown keys. Each package declares its own in a
`settings.py` that does not import torch. The string under a field is its documentation and is
copied into `docs/sweep-file.md`.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp32", "bf16", "auto"]
"""Number format of a network; `auto` is bf16 where the hardware computes in it."""


class Settings(BaseModel):
    """Base class of immutable settings; unknown keys, other types, NaN and infinity are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def as_shown(setting: Any) -> Any:
    """Return a setting as tables and names of tests show it: a list or mapping as JSON."""
    return json.dumps(setting, default=str) if isinstance(setting, list | dict) else setting


class TrainingSettings(Settings):
    """The training of a run, and how often it is evaluated."""

    stage_epochs: int = Field(3000, ge=1)
    """Epochs of each stage; a conventional run has the epochs of all stages."""
    evaluate_every: int = Field(10, ge=1)
    """Epochs between two evaluations; a divisor of `stage_epochs`."""
    epoch_steps: int | None = Field(None, ge=1)
    """Steps of an epoch; null: one full pass over the current groups."""
    batch_size: int = Field(64, ge=2)
    """Real images in a step."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """Adam's learning rate, for both networks; null: as published (all: 0.0002)."""
    beta1: float | None = Field(None, ge=0, lt=1)
    """Adam's first decay rate; null: as published (`dcgan` 0.5, the others 0)."""
    beta2: float | None = Field(None, ge=0, lt=1)
    """Adam's second decay rate; null: as published (`dcgan` 0.999, the others 0.9)."""
    d_steps: int | None = Field(None, ge=1)
    """Updates of D for each update of G; null: as published (`sngan` and `wgan-gp` 5, else 1)."""
    horizontal_flip: bool = False
    """Mirror each real image with probability 1/2."""
    precision: Precision = "auto"
    """`fp32` (without TF32), `bf16` (autocast), or `auto`: bf16 where the hardware has it."""
    deterministic: bool = True
    """Use deterministic algorithms only. Others can be faster on a GPU, and make
    a repeated run differ."""
