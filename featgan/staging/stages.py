"""The plan of a run: its stages, and the groups that each of them trains on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from featgan.staging.modes import arrange


@dataclass(frozen=True)
class Stage:
    """A stretch of training on fixed data."""

    number: int
    """From 1."""
    groups: tuple[int, ...]
    """The groups trained on, in the order they were added."""
    epochs: int
    """How many at most; a criterion may end the stage before."""


def plan(
    mode: str, k: int, stage_epochs: int, change: Literal["add", "replace"] = "add"
) -> tuple[Stage, ...]:
    """The stages of a run over `k` groups in the order of `mode` (paper, section 4).

    A stage has `stage_epochs` epochs for each group it takes on; so a conventional run, which
    takes on all at once, has as many as a staged one in all.
    """
    additions = arrange(mode, k)
    trained_on = additions if change == "replace" else list(accumulate(additions))
    return tuple(
        Stage(number, groups, stage_epochs * len(added))
        for number, (groups, added) in enumerate(zip(trained_on, additions, strict=True), 1)
    )
