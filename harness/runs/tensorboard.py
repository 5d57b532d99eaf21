"""TensorBoard's event files of a run, with epochs spent on the x axis."""

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from featgan.staging.progress import Evaluation, StageRecord
from harness.records.run_record import RunRecord
from harness.records.sweep_results import dotted
from harness.storage.store import Store

HISTOGRAM_FILE = "events.out.tfevents.histogram"
SUMMARY = ("final_score", "best_score", "epochs_to_peak", "epochs_spent")
"""Fields of the run's record that TensorBoard compares runs by."""


class EventWriter:
    """Write the events of a run that starts, or continues, after `epochs_spent` epochs.

    Each continuation writes a file of its own. It makes TensorBoard discard the points that
    earlier files have of later epochs, because these are trained again. `flush` before every
    checkpoint: then the curves of a continued run have no gap and no point twice.
    """

    def __init__(self, store: Store, folder: str, protocol: str, epochs_spent: int) -> None:
        self._store, self._folder = store, folder
        if store.is_local:
            self._path = Path(store.join(folder))
        else:
            self._path = Path(tempfile.mkdtemp(prefix="featgan-events-"))
            weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
        purge_step = epochs_spent + 1 if epochs_spent else 0
        self._writer = SummaryWriter(str(self._path), purge_step=purge_step, flush_secs=10)
        if not epochs_spent:
            self._writer.add_text("score_protocol", protocol, 0)

    def add_evaluation(self, evaluation: Evaluation, stage: StageRecord) -> None:
        """Add a point to every curve."""
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
        for tag, value in points.items():
            self._writer.add_scalar(tag, value, evaluation.epochs_spent)

    def add_samples(self, picture: Image.Image, epochs_spent: int) -> None:
        """Add a grid of samples."""
        self._writer.add_image("samples", np.asarray(picture), epochs_spent, dataformats="HWC")

    def flush(self) -> None:
        """Write all events to the store."""
        self._writer.flush()
        if not self._store.is_local:
            for path in self._path.iterdir():
                self._store.put(f"{self._folder}/{path.name}", path.read_bytes())

    def add_summary(self, record: RunRecord) -> None:
        """Add settings and results of a run that has ended, for TensorBoard's tab HPARAMS."""
        cell = {**record.cell, "status": record.status}
        settings = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in dotted({"cell": cell, **record.settings})
            if value is not None  # TensorBoard compares values of one kind, and knows missing ones
        }
        numbers = {name: getattr(record, name) for name in SUMMARY}
        numbers |= {"training_seconds": record.seconds.train}
        self._writer.flush()  # this goes to a further file, and TensorBoard never turns back
        self._writer.add_hparams(
            settings,
            {f"summary/{name}": value for name, value in numbers.items() if value is not None},
            run_name=".",
            global_step=record.epochs_spent,
        )

    def close(self) -> None:
        """Write all events to the store; nothing can be added afterwards."""
        self.flush()
        self._writer.close()


def histogram(by: str, counts: Mapping[int | float, int]) -> bytes:
    """Return TensorBoard's event file of the histogram: number of images by value."""
    values = np.repeat(list(counts), list(counts.values()))
    # a count is an interval of length 1; TensorBoard's own bins are logarithmic
    last = values.max() + (1 if values.dtype.kind == "i" else 0)
    with tempfile.TemporaryDirectory(prefix="featgan-events-") as folder:
        with SummaryWriter(folder) as writer:
            writer.add_histogram(by, values, 0, bins=np.linspace(values.min(), last, 65))
        (path,) = Path(folder).iterdir()
        return path.read_bytes()
