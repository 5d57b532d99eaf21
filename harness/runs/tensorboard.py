"""TensorBoard curves: a projection of the run record, with epochs spent on the x axis.

When a run continues, its old event files are removed and its record is written again, so
that its curves have neither gaps nor double points. Only the sample grids, which the record
does not hold, are taken over from the old files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from featgan.sample import grid, png
from featgan.staging.progress import Evaluation, StageRecord
from harness.records.run_record import RunRecord
from harness.records.sweep_results import dotted

EVENTS = "events.out.tfevents.*"
SAMPLES = "samples"


class Curves:
    """The event file of one run: its record so far, then what is added."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        grids = [(step, value) for step, value in _grids(folder) if step <= record.epochs_spent]
        self._writer = _fresh(folder)
        self._summaries = self._writer._get_file_writer()
        self._writer.add_text("score_protocol", record.score_protocol, 0)
        for step, value in grids:
            self._summaries.add_summary(Summary(value=[value]), step)
        for evaluation in record.evaluations:
            self.add(evaluation, record.stages[evaluation.stage - 1])
        self._writer.flush()

    def add(self, evaluation: Evaluation, stage: StageRecord) -> None:
        """One evaluation of a stage, as a point of every curve."""
        points = {
            "evaluation/score": evaluation.score,
            "evaluation/spread": evaluation.spread,
            "evaluation/score_std": evaluation.score_std,
            "loss/discriminator": evaluation.loss_d,
            "loss/generator": evaluation.loss_g,
            "probability_real/of_real_images": evaluation.d_real,
            "probability_real/of_generated_images": evaluation.d_fake,
            "stage/number": evaluation.stage,
            "stage/groups": len(stage.groups),
            "stage/images": stage.images,
            "stage/epoch": evaluation.epoch,
            "speed/images_per_second": evaluation.images_per_second,
            **{f"evaluation/{name}": value for name, value in evaluation.metrics.items()},
        }
        # One event for all: one each would be most of what a run costs besides training.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        self._summaries.add_summary(Summary(value=values), evaluation.epochs_spent)

    def grid(self, images: NDArray[np.uint8], epochs_spent: int) -> None:
        """Images uint8 [n, 3, S, S] of the fixed noise as one picture."""
        picture = grid(images)
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=3,
            encoded_image_string=png(picture),
        )
        value = Summary.Value(tag=SAMPLES, image=image)
        self._summaries.add_summary(Summary(value=[value]), epochs_spent)
        self._writer.flush()

    def finish(self, record: RunRecord) -> None:
        """Hyperparameters and final metrics, for the tab that compares runs; then close."""
        metrics: dict[str, float | None] = {
            "summary/score": record.final_score,
            "summary/best_score": record.best_score,
            "summary/epochs_to_peak": record.epochs_to_peak,
            "summary/epochs_spent": record.epochs_spent,
            "summary/training_seconds": record.seconds.train,
        }
        known = {tag: value for tag, value in metrics.items() if value is not None}
        for summary in hparams(_hyperparameters(record), known):
            self._summaries.add_summary(summary)
        for tag, value in known.items():
            self._writer.add_scalar(tag, value, record.epochs_spent)
        self.close()

    def close(self) -> None:
        """Write what is pending; a run that goes on later starts a new file."""
        self._writer.close()


def write_histogram(folder: Path, by: str, histogram: dict[int | float, int]) -> None:
    """Images of each value by which they are grouped, as the one event file of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = _fresh(folder)
    values = np.repeat(list(histogram), list(histogram.values()))
    # a count is an interval of length 1; TensorBoard's own bins are logarithmic
    last = values.max() + (1 if values.dtype.kind == "i" else 0)
    edges = np.linspace(values.min(), last, 65)
    writer.add_histogram(by, values, 0, bins=edges)
    writer.close()


def _fresh(folder: Path) -> SummaryWriter:
    """A writer to a folder without event files."""
    for old in folder.glob(EVENTS):
        old.unlink()
    return SummaryWriter(str(folder), flush_secs=10)


def _grids(folder: Path) -> Iterator[tuple[int, Summary.Value]]:
    """Epochs spent and picture of every sample grid in a folder's event files; the last wins."""
    found = {}
    for path in sorted(folder.glob(EVENTS)):
        for data in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(data)
            for value in event.summary.value:
                if value.tag == SAMPLES:
                    found[event.step] = value
    yield from sorted(found.items())


def _hyperparameters(record: RunRecord) -> dict[str, float | str]:
    """Settings and cell by dotted keys, as numbers and text."""
    cell = {**record.cell, "status": record.status}
    everything = dotted({"cell": cell, **record.settings})  # TensorBoard sorts: the cell is first
    return {
        key: value if isinstance(value, int | float | str) and not isinstance(value, bool)
        else json.dumps(value)
        for key, value in everything
    }  # fmt: skip
