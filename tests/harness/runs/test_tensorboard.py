"""TensorBoard curves, read back from the event files."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from processes import LOOPBACK, MARK, listening, marked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.runs.tensorboard import Curves, write_histogram

GROUPS = [[3], [3, 2]]
SCORES = [[1.0, 2.0], [1.5, 3.0]]


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def points(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


@pytest.fixture
def run(make_run):
    cell = {"data": "a", "mode": "descending", "seed": 0}
    return make_run(cell, SCORES, GROUPS, images=[100, 200])


def part(run, evaluations):
    """The run's record as it was after that many evaluations."""
    some = run.evaluations[:evaluations]
    spent = some[-1].epochs_spent if some else 0
    return run.model_copy(update={"evaluations": some, "epochs_spent": spent})


def test_epochs_spent_on_the_x_axis(tmp_path, run):
    Curves(tmp_path, run).close()
    assert points(tmp_path, "evaluation/score") == [(10, 1.0), (20, 2.0), (30, 1.5), (40, 3.0)]
    assert points(tmp_path, "stage/images") == [(10, 100), (20, 100), (30, 200), (40, 200)]


def test_a_continued_run_has_no_gap_and_no_double_points(tmp_path, run):
    first = Curves(tmp_path, part(run, 1))
    for evaluation in run.evaluations[1:3]:
        first.add(evaluation, run.stages[evaluation.stage - 1])
        first.grid(
            np.full((4, 3, 8, 8), evaluation.epochs_spent, np.uint8), evaluation.epochs_spent
        )
    first.close()
    # The record reaches to the second evaluation: the third will be trained again.
    second = Curves(tmp_path, part(run, 2))
    for evaluation in run.evaluations[2:]:
        second.add(evaluation, run.stages[evaluation.stage - 1])
    second.finish(run)
    assert points(tmp_path, "evaluation/score") == [(10, 1.0), (20, 2.0), (30, 1.5), (40, 3.0)]
    events = read(tmp_path)
    assert [image.step for image in events.Images("samples")] == [20]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_final_metrics_and_hyperparameters(tmp_path, run):
    Curves(tmp_path, run).finish(run)
    assert points(tmp_path, "summary/score") == [(40, 3.0)]
    assert points(tmp_path, "summary/epochs_to_peak") == [(40, 40.0)]
    tags = read(tmp_path).PluginTagToContent("hparams")
    start = tags["_hparams_/session_start_info"]
    for name in (b"cell.mode", b"cell.seed", b"training.stage_epochs"):
        assert name in start


def test_a_run_without_evaluations_has_no_points(tmp_path, run):
    Curves(tmp_path, part(run, 0)).close()
    assert read(tmp_path).Tags()["scalars"] == []


def test_histogram_of_feature_counts(tmp_path):
    for _ in range(2):  # the second replaces the first
        write_histogram(tmp_path, "feature_count", {700: 3, 900: 1})
    (event,) = read(tmp_path).Histograms("feature_count")
    value = event.histogram_value
    assert (value.num, value.min, value.max, value.sum) == (4, 700, 900, 3000)
    assert sorted(value.bucket)[-2:] == [1, 3]
    assert value.bucket_limit[-1] == 901


def test_tensorboard_as_people_are_told_to_start_it_listens_on_loopback_only(
    tmp_path,
):
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", tmp_path, "--port", "0"]
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command, env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (addresses := listening(marked(mark))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert addresses <= LOOPBACK
