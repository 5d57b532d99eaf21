"""Progress of a run through its stages.

Pure logic without tensors. Section 4 of the paper: train on one group, measure the score, and add
the next group where it peaked.
"""

import math
from dataclasses import asdict, dataclass, field
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
    images_seen: int = 0
    """Number of different images trained on so far in the whole run."""
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
    moved: int | None = None
    """Number of its images that came to its groups by `stages.rank`; None without it."""


@dataclass(frozen=True)
class Peak:
    """The evaluation that a stage's criterion chose; the paper's: the first of the best score."""

    epoch: int
    """Epochs of the stage when it was measured."""
    score: float


@dataclass
class Progress:
    """Position of a run in its stages: peaks, rewinds and epoch counts."""

    stages: tuple[Stage, ...]
    settings: StageSettings = field(default_factory=StageSettings)
    index: int = 0
    """Position in `stages` of the current stage; `len(stages)` once finished."""
    epochs: list[int] = field(default_factory=lambda: [0])
    """Epochs trained in each stage begun, including those undone by a rewind."""
    peaks: list[Peak | None] = field(default_factory=lambda: [None])
    """Peak of each stage begun; None before the stage's first evaluation."""
    best_score: float | None = None
    """The highest score of the whole run; None before the first evaluation."""
    measured: list[tuple[int, float, float]] = field(default_factory=list)
    """Epoch, score and watched value of each evaluation of the current stage."""
    chosen: int | None = None
    """Position of the peak in `measured`."""
    over: bool = False
    """True once the criterion has ended the current stage."""

    @property
    def finished(self) -> bool:
        """True once every stage has ended."""
        return self.index == len(self.stages)

    @property
    def stage(self) -> Stage:
        """The current stage; once finished, the last one."""
        return self.stages[min(self.index, len(self.stages) - 1)]

    @property
    def epoch(self) -> int:
        """Epochs trained in the current stage."""
        return self.epochs[-1]

    @property
    def epochs_spent(self) -> int:
        """Epochs trained in all stages, including those undone by a rewind."""
        return sum(self.epochs)

    @property
    def share(self) -> float:
        """Epochs spent as a share of the epochs of all stages."""
        return self.epochs_spent / sum(stage.epochs for stage in self.stages)

    @property
    def stage_over(self) -> bool:
        """True once the current stage has trained all its epochs, or its criterion ended it."""
        return not self.finished and (self.over or self.epoch >= self.stage.epochs)

    @property
    def kept(self) -> set[int]:
        """Positions in `measured` whose models are the peak's or may become it."""
        count = len(self.measured)
        recent = range(max(count - self.settings.looks_back, 0), count)
        return {*recent} if self.chosen is None else {*recent, self.chosen}

    @property
    def epochs_to_peak(self) -> int:
        """Epochs that led to the last stage's peak: the paper's "total training epochs".

        With rewinds the sum of the stages' peak epochs; without, earlier stages count in full.
        """
        *earlier, _ = self.epochs
        *peaks, last = [peak.epoch if peak else 0 for peak in self.peaks]
        return sum(peaks if self.settings.rewind else earlier) + last

    @property
    def final_score(self) -> float | None:
        """The score at the last peak; None before the run's first evaluation."""
        return next((peak.score for peak in reversed(self.peaks) if peak), None)

    def trained(self, epochs: int) -> None:
        """Count epochs of training."""
        self.epochs[-1] += epochs

    def observe(self, score: float, watched: float | None = None) -> None:
        """Record an evaluation: its score, and the watched value if that is not the score.

        Higher is better. Updates `peaks`, `kept` and `over` by the criterion. A value that is not
        finite is worse than any other, and never a peak: if the criterion chooses one, the peak
        does not change. Raises UserError if a user-defined criterion fails, or chooses an
        evaluation whose model is not kept.
        """
        kept = self.kept
        value = score if watched is None else watched
        self.measured.append((self.epoch, score, value if math.isfinite(value) else -math.inf))
        if math.isfinite(score):
            self.best_score = score if self.best_score is None else max(score, self.best_score)
        values = [value for _, _, value in self.measured]
        position, self.over = self._apply_criterion(values)
        if values[position] == -math.inf:
            return
        if position not in {*kept, len(values) - 1}:
            raise UserError(
                f"stages.criterion: {self.settings.criterion} chose evaluation {position + 1} of "
                f"{len(values)}, whose model is not kept; raise stages.window to look back further"
            )
        epoch, score, _ = self.measured[position]
        self.chosen, self.peaks[-1] = position, Peak(epoch, score)

    def _apply_criterion(self, values: list[float]) -> tuple[int, bool]:
        """Return the position of the peak in the stage's values, and whether the stage is over."""
        name = self.settings.criterion
        with user_code_errors(name):
            verdict: Any = resolve(name, CRITERIA)(values, self.settings)
        try:
            position, over = verdict
            position, over = int(position), bool(over)  # user code may return numpy's types
        except (TypeError, ValueError):
            position = -1
        if not 0 <= position < len(values):
            raise UserError(
                f"stages.criterion: {name} returned {verdict!r} for {len(values)} values; return "
                "the position of the peak, from 0, and whether the stage is over"
            )
        return position, over

    def next_stage(self) -> None:
        """Begin the next stage; the caller has rewound the model to the peak."""
        self.index += 1
        if not self.finished:
            self.epochs.append(0)
            self.peaks.append(None)
            self.measured, self.chosen, self.over = [], None, False

    def state(self) -> dict[str, Any]:
        """Return numbers in plain containers, from which `restore` continues."""
        state = asdict(self)
        del state["stages"], state["settings"]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state()` of a progress with the same stages and settings."""
        for name, value in state.items():
            setattr(self, name, value)
        self.peaks = [peak and Peak(**peak) for peak in state["peaks"]]
