"""The histogram for TensorBoard, read back from its event file."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.runs.tensorboard import HISTOGRAM_FILE, histogram


def test_a_histogram_of_feature_counts(tmp_path: Path) -> None:
    (tmp_path / HISTOGRAM_FILE).write_bytes(histogram("feature_count", {700: 3, 900: 1}))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Histograms("feature_count")
    value = event.histogram_value
    assert (value.num, value.min, value.max, value.sum) == (4, 700, 900, 3000)
    assert sorted(value.bucket)[-2:] == [1, 3]
    assert value.bucket_limit[-1] == 901
