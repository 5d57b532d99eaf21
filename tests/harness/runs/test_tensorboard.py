"""TensorBoard curves, read back from the event files."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from polling import await_
from processes import LOOPBACK, MARK, listening, marked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featgan.sample import grid
from harness.runs.tensorboard import EventWriter
from harness.storage.store import Store

FOLDER = "s/runs/a"
GROUPS = [[3], [3, 2]]
SCORES = [[1.0, 2.0], [1.5, 3.0]]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def read(store):
    events = EventAccumulator(str(store.local(FOLDER)), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def points(store, tag):
    return [(event.step, event.value) for event in read(store).Scalars(tag)]


@pytest.fixture(scope="module")
def run(make_run):
    cell = {"data": "a", "mode": "descending", "seed": 0}
    return make_run(cell, SCORES, GROUPS, images=[100, 200])


def write(store, run, start, stop):
    """Write the evaluations start..stop of a run, as the process that trains them does."""
    spent = run.evaluations[start - 1].epochs_spent if start else 0
    events = EventWriter(store, FOLDER, run.score_protocol, spent)
    for evaluation in run.evaluations[start:stop]:
        events.add_evaluation(evaluation, run.stages[evaluation.stage - 1])
        spent = evaluation.epochs_spent
        events.add_samples(grid(np.full((4, 3, 8, 8), spent, np.uint8)), spent)
    return events


def test_epochs_spent_are_on_the_x_axis(store, run):
    write(store, run, 0, 4).close()
    assert points(store, "evaluation/score") == [(10, 1.0), (20, 2.0), (30, 1.5), (40, 3.0)]
    assert points(store, "stage/images") == [(10, 100), (20, 100), (30, 200), (40, 200)]


@pytest.mark.usefixtures("seconds_between_event_files")
@pytest.mark.parametrize("root", ["local", "memory://tensorboard-test"])
def test_a_continued_run_has_no_gap_and_no_double_point(tmp_path, run, root):
    store = Store(str(tmp_path) if root == "local" else root)
    write(store, run, 0, 3).flush()  # checkpoint after two of these, killed after three
    write(store, run, 2, 3).flush()
    events = write(store, run, 2, 4)
    events.add_summary(run)
    events.close()
    if root != "local":
        for key in store.list(FOLDER):
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(store.get(key))
        store = Store(str(tmp_path))
    assert points(store, "evaluation/score") == [(10, 1.0), (20, 2.0), (30, 1.5), (40, 3.0)]
    assert [image.step for image in read(store).Images("samples")] == [10, 20, 30, 40]
    assert points(store, "summary/final_score") == [(40, 3.0)]


@pytest.mark.usefixtures("seconds_between_event_files")
def test_a_run_that_starts_again_has_no_points_of_before(store, run):
    write(store, run, 0, 3).flush()
    write(store, run, 0, 0).close()
    assert points(store, "evaluation/score") == []


def test_events_are_on_a_bucket_once_flushed(run):
    store = Store("memory://tensorboard-flush-test")
    events = write(store, run, 0, 1)
    assert store.list(FOLDER) == []
    events.flush()
    (key,) = store.list(FOLDER)
    size = len(store.get(key))
    events.add_evaluation(run.evaluations[1], run.stages[0])
    events.close()
    assert len(store.get(key)) > size


def test_final_metrics_and_hyperparameters(store, run):
    events = write(store, run, 0, 4)
    events.add_summary(run)
    events.close()
    assert points(store, "summary/final_score") == [(40, 3.0)]
    assert points(store, "summary/epochs_to_peak") == [(40, 40.0)]
    tags = read(store).PluginTagToContent("hparams")
    start = tags["_hparams_/session_start_info"]
    for name in (b"cell.mode", b"cell.seed", b"training.stage_epochs"):
        assert name in start


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """TensorBoard's own server over runs of three learning rates: address and mark."""
    folder, mark = tmp_path_factory.mktemp("server"), uuid.uuid4().hex
    for name, rate in {"a": None, "b": 0.001, "c": 0.1}.items():
        record = run.model_copy(update={"settings": {"training": {"learning_rate": rate}}})
        events = EventWriter(Store(str(folder)), f"s/runs/{name}", run.score_protocol, 0)
        events.add_summary(record)
        events.close()
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", folder, "--port", "0"]
    process = subprocess.Popen(
        command, env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        lines = iter(process.stderr.readline, b"")
        yield (
            next(found[0] for x in lines if (found := re.search(r"http://\S+/", x.decode()))),
            mark,
        )
    finally:
        process.kill()
        process.communicate()


def test_an_axis_of_numbers_and_null_is_filtered_by_tensorboard(server):
    def names(**chosen):
        """Ask for runs as the page does."""
        column = {"hparam": "training.learning_rate", "includeInResult": True, **chosen}
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS"]
        asked = {"colParams": [column], "allowedStatuses": statuses, "sliceSize": 9}
        where, data = f"{server[0]}data/plugin/hparams/session_groups", json.dumps(asked).encode()
        with urlopen(Request(where, data, {"Content-Type": "application/json"})) as answer:
            groups = json.load(answer)["sessionGroups"]
        return {group["sessions"][0]["name"].rpartition("/")[2] for group in groups}

    await_(lambda: names() == {"a", "b", "c"}, "TensorBoard has read the files", 60)
    assert names(filterInterval={"minValue": 0, "maxValue": 0.01}) == {"a", "b"}
    whole = {"minValue": 0, "maxValue": 1}
    assert names(filterInterval=whole, excludeMissingValues=True) == {"b", "c"}


@pytest.mark.guarantee("Exposure", "On one machine only loopback is listened on")
def test_tensorboard_by_default_listens_on_loopback_only(server):
    await_(lambda: listening(marked(server[1])), "TensorBoard listens")
    assert listening(marked(server[1])) <= LOOPBACK
