"""The run record: the schema of `run.json`, from which all tables are made.

A trial writes it; the sweep reads from it which runs are done.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict

from featgan.staging.progress import Evaluation, StageRecord
from harness.storage.sealed import Sealed

Status = Literal["running", "interrupted", "finished", "diverged", "failed", "stopped"]
FINAL: tuple[Status, ...] = ("finished", "diverged")
"""Runs of any other status are continued by the next sweep, `stopped` ones not by a pilot."""


@dataclass(frozen=True)
class Seconds:
    """Time that a run has spent, in seconds, over all its continuations."""

    train: float = 0.0
    score: float = 0.0
    io: float = 0.0
    wait: float = 0.0
    """Start-up: loading libraries, images and classifier."""


def timestamp() -> str:
    """Return the time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _complete(cell: dict[str, Any]) -> dict[str, Any]:
    kinds = {"data": str, "mode": str, "seed": int}
    if not all(isinstance(cell.get(key), kind) for key, kind in kinds.items()):
        raise ValueError("a cell has text for data and mode, and a whole number for seed")
    return cell


CellRecord = Annotated[dict[str, Any], AfterValidator(_complete)]
"""A place in the grid: `data`, `mode`, `seed` and any further axis by dotted key."""


class RunRecord(Sealed):
    """Everything about one run; `run.json` is this model as sealed JSON."""

    model_config = ConfigDict(extra="forbid")

    run: str
    """Name of the run and of its directory: `<data set>-<mode>-seed<n>[-<axis>…]-<signature>`."""
    signature: str
    """Hash of all that can change the result."""
    cell: CellRecord
    """The run's place in the grid."""
    settings: dict[str, Any]
    """The run's resolved settings, as in a sweep file."""
    data_key: str = ""
    """Store key of its images and feature counts; empty if unknown."""
    data_digest: str = ""
    """Hash of images and feature counts, a part of the signature; empty if unknown."""
    status: Status
    reason: str | None = None
    """Why a run failed, diverged or was interrupted."""
    score_protocol: str
    metrics_protocol: str = ""
    """Protocol of the further metrics; empty without any."""
    stages: list[StageRecord]
    epochs_to_peak: int
    """Sum of the stages' peak epochs: the paper's "total training epochs". Without rewinds, earlier
    stages count in full."""
    epochs_spent: int
    final_score: float | None
    """The last stage's peak, or the peak before it if the run ended without one."""
    best_score: float | None
    """The highest score of the whole run."""
    evaluations: list[Evaluation]
    generator_sha256: str | None = None
    """SHA-256 of `generator.safetensors`, once the run has ended."""
    last_generator_sha256: str | None = None
    """SHA-256 of `last_generator.safetensors`, once the run has finished."""
    seconds: Seconds
    device: str
    machines: tuple[str, ...] = ()
    """Host and device of the start and of every continuation."""
    precision: str
    versions: dict[str, str]
    continued: int = 0
    """Number of continuations from a checkpoint."""
    started: str
    updated: str
    """ISO 8601, UTC."""

    @property
    def images_to_peak(self) -> int:
        """Number of images, with repetitions, trained on in `epochs_to_peak`."""
        training = self.settings.get("training", {})
        of_epoch = (training.get("epoch_steps") or 0) * training.get("batch_size", 0)
        epochs = [stage.peak_epoch or 0 for stage in self.stages]
        if not self.rewinds:  # earlier stages count in full, as in `epochs_to_peak`
            epochs[:-1] = [stage.epochs for stage in self.stages[:-1]]
        counted = zip(epochs, self.stages, strict=True)
        return sum(number * (of_epoch or stage.images) for number, stage in counted)

    @property
    def rewinds(self) -> bool:
        """Return whether each stage begins with the model of the peak before it."""
        return bool(self.settings.get("stages", {}).get("rewind", True))

    @property
    def choices(self) -> int:
        """Number of evaluations of the last stage, among which the kept model is chosen."""
        return sum(evaluation.stage == len(self.stages) for evaluation in self.evaluations)
