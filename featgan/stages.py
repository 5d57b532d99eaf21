"""When which groups train, when a stage ends, and where the next one starts.

Pure logic without tensors: the trainer asks, trains, and tells the score. Section 4 of the
paper: train on one group, measure the score, and add the next group where it peaked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Mode = Literal["descending", "ascending", "conventional"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Stage:
    """A stretch of training on fixed data."""

    number: int
    """From 1."""
    groups: tuple[int, ...]
    """The groups trained on, in the order they were added."""
    epochs: int


@dataclass(frozen=True)
class Peak:
    """The evaluation with the best score of its stage; of equal scores, the first."""

    epoch: int
    """Epochs of the stage when it was measured."""
    score: float


def plan(mode: Mode, k: int, stage_epochs: int) -> tuple[Stage, ...]:
    """The stages of a run over `k` groups (paper, section 4).

    `ascending` starts with the group of the lowest centroid and adds upwards, `descending`
    the other way round. `conventional` trains on all data for as many epochs as a staged
    run spends in all.
    """
    numbers = list(range(1, k + 1))
    if mode == "conventional":
        return (Stage(1, tuple(numbers), k * stage_epochs),)
    if mode == "descending":
        numbers.reverse()
    return tuple(Stage(n, tuple(numbers[:n]), stage_epochs) for n in range(1, k + 1))


@dataclass
class Progress:
    """How far a run has come through its stages: the peak, the rewind, the epoch counts."""

    stages: tuple[Stage, ...]
    index: int = 0
    """Position in `stages` of the stage under way; `len(stages)` once finished."""
    epoch: int = 0
    """Epochs trained in the stage under way."""
    epochs_spent: int = 0
    """Epochs trained in all, those undone by a rewind included."""
    peaks: list[Peak | None] = field(default_factory=list)
    """One for each stage begun; None until the stage's first evaluation."""

    def __post_init__(self) -> None:
        if not self.peaks:
            self.peaks = [None]

    @property
    def finished(self) -> bool:
        """Whether every stage has ended."""
        return self.index == len(self.stages)

    @property
    def stage(self) -> Stage:
        """The stage under way; once finished, the last one."""
        return self.stages[min(self.index, len(self.stages) - 1)]

    @property
    def stage_over(self) -> bool:
        """Whether the stage under way has trained all its epochs."""
        return not self.finished and self.epoch >= self.stage.epochs

    def trained(self, epochs: int) -> None:
        """Count epochs of training."""
        self.epoch += epochs
        self.epochs_spent += epochs

    def observe(self, score: float) -> bool:
        """Take the score measured now; True if it is the stage's peak so far."""
        best = self.peaks[-1]
        if math.isnan(score) or (best is not None and score <= best.score):
            return False
        self.peaks[-1] = Peak(self.epoch, score)
        return True

    def next_stage(self) -> None:
        """Go on to the next stage; the caller has rewound the model to the peak."""
        self.index += 1
        if not self.finished:
            self.epoch = 0
            self.peaks.append(None)

    @property
    def epochs_to_peak(self) -> int:
        """Sum of the stages' peak epochs: the paper's "total training epochs"."""
        return sum(peak.epoch for peak in self.peaks if peak)

    @property
    def final_score(self) -> float | None:
        """The peak of the last stage begun; None before its first evaluation."""
        return self.peaks[-1].score if self.peaks[-1] else None

    @property
    def best_score(self) -> float | None:
        """The highest score of the whole run; None before the first evaluation."""
        return max((peak.score for peak in self.peaks if peak), default=None)

    def state(self) -> dict[str, Any]:
        """Plain numbers from which `restore` continues."""
        return {
            "index": self.index,
            "epoch": self.epoch,
            "epochs_spent": self.epochs_spent,
            "peaks": [(peak.epoch, peak.score) if peak else None for peak in self.peaks],
        }

    @classmethod
    def restore(cls, stages: tuple[Stage, ...], state: dict[str, Any]) -> Progress:
        """The progress that `state` was taken from."""
        peaks = [Peak(*peak) if peak else None for peak in state["peaks"]]
        return cls(stages, state["index"], state["epoch"], state["epochs_spent"], peaks)
