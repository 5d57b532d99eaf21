"""Progress of a run through its stages.

Pure logic without tensors. Section 4 of the paper: train on one group, measure the score, and add
the next group where it peaked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from featgan.errors import UserError
from featgan.staging.criteria import CRITERIA
from featgan.staging.settings import StageSettings
from featgan.staging.stages import Stage
from featgan.user_code import resolve, user_code_errors


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measurement of the score during training; losses are means since the previous one."""

    stage: int
    """Number of the stage, from 1."""
    epoch: int
    """Epochs of this stage trained so far."""
    epochs_spent: int
    """Epochs of the whole run trained so far, including those undone by a rewind."""
    steps: int
    """Steps of the whole run so far, each an update of the discriminator."""
    score: float
    score_std: float
    """Standard deviation of the score over its splits."""
    spread: float
    """Standard deviation over generated images, in grey levels; near 0: all images are alike."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics that were only reported."""
    loss_d: float
    loss_g: float
    d_real: float
    """Mean probability, by D, that a real image is real."""
    d_fake: float
    """Mean probability, by D, that a generated image is real."""
    images_per_second: float
    """Real images trained on per second of training time since the previous evaluation."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """A stage and its peak so far."""

    stage: int
    """Number of the stage, from 1."""
    groups: tuple[int, ...]
    """Numbers of the feature groups trained on, in the order they were added."""
    images: int
    epochs: int
    """Epochs trained in this stage so far."""
    peak_epoch: int | None
    """Epoch of this stage at its peak; None before the first evaluation."""
    peak_score: float | None


@dataclass(frozen=True)
class Peak:
    """The evaluation that a stage's criterion chose; the paper's: the first of the best score."""

    epoch: int
    """Epochs of the stage when it was measured."""
    score: float


@dataclass
class Progress:
    """How far a run has come through its stages: the peak, the rewind, the epoch counts."""

    stages: tuple[Stage, ...]
    settings: StageSettings = field(default_factory=StageSettings)
    index: int = 0
    """Position in `stages` of the stage under way; `len(stages)` once finished."""
    epochs: list[int] = field(default_factory=lambda: [0])
    """Epochs trained in each stage begun, those undone by a rewind included."""
    peaks: list[Peak | None] = field(default_factory=lambda: [None])
    """One for each stage begun; None until the stage's first evaluation."""
    best_score: float | None = None
    """The highest score of the whole run; None before the first evaluation."""
    measured: list[tuple[int, float, float]] = field(default_factory=list)
    """Epoch, score and watched value of each evaluation of the stage under way."""
    chosen: int | None = None
    """Position in `measured` of the peak."""
    over: bool = False
    """Whether the criterion has ended the stage under way."""

    @property
    def finished(self) -> bool:
        """Whether every stage has ended."""
        return self.index == len(self.stages)

    @property
    def stage(self) -> Stage:
        """The stage under way; once finished, the last one."""
        return self.stages[min(self.index, len(self.stages) - 1)]

    @property
    def last_stage(self) -> bool:
        """Whether no stage follows the one under way."""
        return self.index >= len(self.stages) - 1

    @property
    def epoch(self) -> int:
        """Epochs trained in the stage under way."""
        return self.epochs[-1]

    @property
    def epochs_spent(self) -> int:
        """Epochs trained in all, those undone by a rewind included."""
        return sum(self.epochs)

    @property
    def share(self) -> float:
        """Epochs spent, of those that all stages may have."""
        return self.epochs_spent / sum(stage.epochs for stage in self.stages)

    @property
    def stage_over(self) -> bool:
        """Whether the stage under way has trained all its epochs, or its criterion ended it."""
        return not self.finished and (self.over or self.epoch >= self.stage.epochs)

    def trained(self, epochs: int) -> None:
        """Count epochs of training."""
        self.epochs[-1] += epochs

    def observe(self, score: float, value: float | None = None) -> None:
        """Take what was measured now: the score, and the watched value where it is another.

        Higher is better. `peaks`, `kept` and `over` say afterwards what the criterion makes of
        it. A value that is not finite is worse than any, and never a peak: where the criterion
        chooses one, the peak stays where it was.
        """
        kept = self.kept
        watched = score if value is None else value
        self.measured.append((self.epoch, score, watched if math.isfinite(watched) else -math.inf))
        if math.isfinite(score):
            self.best_score = score if self.best_score is None else max(score, self.best_score)
        values = [watched for _, _, watched in self.measured]
        chosen, self.over = self._judged(values)
        newest = len(values) - 1
        usable = values[chosen] > -math.inf
        if usable and chosen != newest and chosen not in kept:
            raise UserError(
                f"stages.criterion: {self.settings.criterion} chose evaluation {chosen + 1} of "
                f"{newest + 1}, whose model is not kept; raise stages.window to look back further"
            )
        if usable:
            epoch, score, _ = self.measured[chosen]
            self.chosen, self.peaks[-1] = chosen, Peak(epoch, score)

    def _judged(self, values: list[float]) -> tuple[int, bool]:
        """What the criterion says of the stage's values: position of the peak, and whether over."""
        name = self.settings.criterion
        with user_code_errors(name):
            verdict: Any = resolve(name, CRITERIA)(values, self.settings)
        try:
            chosen, over = verdict
            chosen, over = int(chosen), bool(over)  # a user's own may be of numpy
        except (TypeError, ValueError):
            chosen = -1
        if not 0 <= chosen < len(values):
            raise UserError(
                f"stages.criterion: {name} gave {verdict!r} for {len(values)} values; it must give "
                "the peak's position, from 0, and whether the stage is over"
            )
        return chosen, over

    @property
    def kept(self) -> set[int]:
        """Positions in `measured` of the models that are, or may become, the peak's."""
        newest = len(self.measured) - 1
        recent = range(max(newest + 1 - self.settings.looks_back, 0), newest + 1)
        return {*recent} if self.chosen is None else {*recent, self.chosen}

    def next_stage(self) -> None:
        """Go on to the next stage; the caller has rewound the model to the peak."""
        self.index += 1
        if not self.finished:
            self.epochs.append(0)
            self.peaks.append(None)
            self.measured, self.chosen, self.over = [], None, False

    @property
    def epochs_to_peak(self) -> int:
        """Epochs behind the last stage's peak: the paper's "total training epochs".

        With rewinds the sum of the stages' peak epochs; without, earlier stages count in full.
        """
        *earlier, _ = self.epochs
        *peaks, last = [peak.epoch if peak else 0 for peak in self.peaks]
        return sum(peaks if self.settings.rewind else earlier) + last

    @property
    def final_score(self) -> float | None:
        """The score at the last peak; None before the run's first evaluation."""
        return next((peak.score for peak in reversed(self.peaks) if peak), None)

    def state(self) -> dict[str, Any]:
        """Plain numbers from which `restore` continues."""
        return {
            "index": self.index,
            "epochs": list(self.epochs),
            "peaks": [(peak.epoch, peak.score) if peak else None for peak in self.peaks],
            "best_score": self.best_score,
            "measured": list(self.measured),
            "chosen": self.chosen,
            "over": self.over,
        }

    @classmethod
    def restore(
        cls, stages: tuple[Stage, ...], settings: StageSettings, state: dict[str, Any]
    ) -> Progress:
        """The progress that `state` was taken from."""
        peaks = [Peak(*peak) if peak else None for peak in state["peaks"]]
        return cls(stages, settings, **state | {"peaks": peaks})
