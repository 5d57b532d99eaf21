"""The plan of a run: its stages, and the groups that each of them trains on."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from featgan.staging.modes import added_groups


@dataclass(frozen=True)
class Stage:
    """A stretch of training on fixed data."""

    number: int
    """From 1."""
    groups: tuple[int, ...]
    """The groups trained on, in the order they were added."""
    epochs: int
    """Upper limit; a criterion may end the stage earlier."""


def plan(
    mode: str, k: int, stage_epochs: int, change: Literal["add", "replace"] = "add"
) -> tuple[Stage, ...]:
    """Return the stages of a run over `k` groups in the order of `mode` (paper, section 4).

    A stage has `stage_epochs` epochs for each group that it adds. So a conventional run, which
    adds all groups at once, has as many epochs as a staged run.
    """
    additions = added_groups(mode, k)
    trained_on = additions if change == "replace" else list(accumulate(additions))
    return tuple(
        Stage(number, groups, stage_epochs * len(added))
        for number, (groups, added) in enumerate(zip(trained_on, additions, strict=True), 1)
    )
