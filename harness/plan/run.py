"""A run that is to be carried out: where its data lie, how long it is, how it is asked to stop."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.grid import Cell


@dataclass(frozen=True)
class Run:
    """A cell of the grid whose data are known."""

    sweep: str
    cell: Cell
    signature: str
    data_key: str
    groups_key: str
    classifier_key: str | None
    values_key: str | None = None
    """What images are grouped by; None: their feature counts."""
    real_key: str | None = None
    """The classifier's features of the real images; None where no metric needs them."""
    data_digest: str = ""
    """Of the data set's images and counts."""
    images: int = 1
    """Of the whole data set; decides with the settings how long the run is."""

    @property
    def name(self) -> str:
        """Name of the run, of its Tune trial, and of its folder."""
        return f"{self.cell.label}-{self.signature}"

    @property
    def folder(self) -> str:
        """Store key of the run directory."""
        return f"{self.sweep}/runs/{self.name}"


def planned_epochs(run: Run) -> int:
    """Epochs of all stages of a run; a criterion may end a stage before."""
    return sum(stage.epochs for stage in run.cell.stages)


def stop_key(sweep: str) -> str:
    """The file that asks every run of a sweep, on whatever node, to checkpoint and stop."""
    return f"{sweep}/stop"
