"""A run to be trained: its settings, the store keys of its data, its length."""

from dataclasses import dataclass

from harness.plan.estimate import estimate
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
    """Store key of the values that images are grouped by; None for their feature counts."""
    selected_key: str | None = None
    """Store key of the list of images that are trained on; None for all."""
    real_key: str | None = None
    """Store key of the real images' features; None where no metric needs them."""
    data_digest: str = ""
    """Hash of the data set's images and feature counts."""
    images: int = 1
    """Number of images of the whole data set."""

    @property
    def name(self) -> str:
        """Name of the run, of its Tune trial, and of its folder."""
        return f"{self.cell.label}-{self.signature}"

    @property
    def folder(self) -> str:
        """Store key of the run directory."""
        return f"{self.sweep}/runs/{self.name}"

    @property
    def stop_key(self) -> str:
        """Store key of the file that asks every run of the sweep to checkpoint and stop."""
        return f"{self.sweep}/stop"

    @property
    def planned_epochs(self) -> int:
        """Epochs of all stages; a criterion may end a stage earlier."""
        return sum(stage.epochs for stage in self.cell.stages)

    @property
    def planned_images(self) -> int:
        """Number of images, with repetitions, that the run trains on; a measure of its length."""
        return estimate(self.cell, self.images).images
