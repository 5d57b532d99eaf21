"""The run record: the schema of `run.json`, the one truth that tables are made from.

Written by the trial at every evaluation, read by the sweep (what is done?) and by the
results. Knows no Ray and no tensors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from featgan.staging.progress import Evaluation, StageRecord
from harness.storage.sealed import Sealed

Status = Literal["running", "interrupted", "finished", "diverged", "failed", "stopped"]
FINAL: tuple[Status, ...] = ("finished", "diverged")
"""A run of any other status is continued by the next sweep; a pilot leaves `stopped` ones be."""


class Seconds(BaseModel):
    """Where the time of a run went, in seconds, over all its continuations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = 0.0
    score: float = 0.0
    io: float = 0.0
    wait: float = 0.0
    """Start-up: loading libraries, images and classifier."""


def _whole(cell: dict[str, Any]) -> dict[str, Any]:
    if not (
        isinstance(cell.get("data"), str)
        and isinstance(cell.get("mode"), str)
        and isinstance(cell.get("seed"), int)
    ):
        raise ValueError("a cell has text for data and mode, and a whole number for seed")
    return cell


CellRecord = Annotated[dict[str, Any], AfterValidator(_whole)]
"""A place in the grid: `data`, `mode`, `seed` and any further axis by dotted key."""


class RunRecord(Sealed):
    """Everything about one run; `run.json` is this model as sealed JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    run: str
    """Name of the run and of its directory: `<data set>-<mode>-seed<n>[-<axis>…]-<signature>`."""
    signature: str
    """Hash of all that can change the result."""
    cell: CellRecord
    """The run's place in the grid."""
    settings: dict[str, Any]
    """The run's resolved settings, as the sweep file spells them."""
    data_key: str = ""
    """Store key of its images and feature counts; empty in a record of old."""
    data_digest: str = ""
    """Hash of what these are, a part of the signature; empty in a record of old."""
    status: Status
    reason: str | None = None
    """Why a run failed, diverged or was interrupted."""
    score_protocol: str
    metrics_protocol: str = ""
    """How the further metrics were made; empty without any."""
    stages: list[StageRecord]
    epochs_to_peak: int
    """Sum of the stages' peak epochs: the paper's "total training epochs"."""
    epochs_spent: int
    final_score: float | None
    """The last stage's peak; of a run that ended before that stage had one, the peak before."""
    best_score: float | None
    """The highest score of the whole run."""
    evaluations: list[Evaluation]
    generator_sha256: str | None = None
    """Of `generator.safetensors`, once the run has ended."""
    seconds: Seconds
    device: str
    machines: tuple[str, ...] = ()
    """Host and device of the start and of every continuation that the record knows of."""
    precision: str
    versions: dict[str, str]
    continued: int = 0
    """How often the run was continued from a checkpoint."""
    started: str
    updated: str
    """ISO 8601, UTC."""
