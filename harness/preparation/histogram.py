"""A histogram for TensorBoard of the values that images are grouped by."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

EVENT_FILE = "events.out.tfevents.histogram"


def event_file(by: str, histogram: Mapping[int | float, int]) -> bytes:
    """Return TensorBoard's event file of the histogram: number of images by value."""
    values = np.repeat(list(histogram), list(histogram.values()))
    # a count is an interval of length 1; TensorBoard's own bins are logarithmic
    last = values.max() + (1 if values.dtype.kind == "i" else 0)
    with tempfile.TemporaryDirectory(prefix="featgan-events-") as folder:
        with SummaryWriter(folder) as writer:
            writer.add_histogram(by, values, 0, bins=np.linspace(values.min(), last, 65))
        (path,) = Path(folder).iterdir()
        return path.read_bytes()
