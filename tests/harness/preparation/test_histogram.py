"""The histogram for TensorBoard, read back from its event file."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.preparation.histogram import EVENT_FILE, event_file


def test_a_histogram_of_feature_counts(tmp_path: Path) -> None:
    (tmp_path / EVENT_FILE).write_bytes(event_file("feature_count", {700: 3, 900: 1}))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Histograms("feature_count")
    value = event.histogram_value
    assert (value.num, value.min, value.max, value.sum) == (4, 700, 900, 3000)
    assert sorted(value.bucket)[-2:] == [1, 3]
    assert value.bucket_limit[-1] == 901
