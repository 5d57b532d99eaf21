"""What runs share, made from a grid; Ray's tasks run in this process, and nothing is counted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from faults import check_every_write
from inline import Inline
from packed import put_counted

from featgan.errors import UserError
from featgan.features import image_values as image_scores
from featgan.features.settings import SelectSettings
from featgan.scores import feature_file, image_quality
from featgan.scores.metrics.registry import measure
from featgan.scores.score import load_classifier
from featgan.scores.settings import ScoreSettings
from harness.cluster import connect
from harness.plan.settings import Sweep
from harness.preparation import classifier, image_values, real_images
from harness.preparation import prepare as preparation
from harness.records.data_set import DataSet, held_out, load_values
from harness.records.sweep_records import DataRecord
from harness.records.sweep_results import SweepResults
from harness.runs import rescore
from harness.storage.store import Store

DATA = DataSet(name="a", key="features/a-0", digest="0a1b", images=40, classes=("x", "y"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)


@pytest.fixture
def store(tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store(str(tmp_path / "results"))
    counted = put_counted(
        store, "features/a-0", images, range(40), ["x", "y"] * 20, digest=DATA.digest
    )
    monkeypatch.setattr(preparation.DataSetBuilder, "build", lambda _: counted)
    record = DataRecord(name="a", digest=DATA.digest, images=40)
    monkeypatch.setattr(preparation.data_set, "data_record", lambda *_: record)
    monkeypatch.setattr(real_images, "count_features", lambda _, images, device: np.arange(9))
    for module, task in (
        (classifier, "train"),
        (image_values, "_values"),
        (real_images, "_measure"),
    ):
        monkeypatch.setattr(module, task, Inline(getattr(module, task)))
    monkeypatch.setattr(ray, "get", lambda value: value)
    return store


def sweep(**more: Any) -> Sweep:
    content = {
        "name": "s",
        "image_size": 32,
        "data": {"a": {"source": "builtin", "set": "digits"}},
        "groups": {"k": 2},
        "training": {"stage_epochs": 1, "evaluate_every": 1},
        "score": {"classifier": "trained", "trained_on": ["a"], "count": 20, "splits": 2},
    }
    return Sweep.model_validate(content | more)


def test_every_grouping_has_a_file_and_only_this_grids_remain(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[Any]()
    monkeypatch.setattr(connect, "await_room", lambda request, _: waits.append(request))
    store.put("s/groups/a-kmeans-k9.json", b"of settings since changed")
    store.put("s/groups/a-kmeans-k9/events", b"")
    grid = {
        "mode": ["ascending"],
        "seed": [0],
        "groups.by": ["feature_count", "edge_density"],
        "groups.tolerance": [0.1, 0.3],
        "groups.method": ["balanced"],
    }
    threads = torch.get_num_threads()
    runs = preparation.prepare_runs(sweep(grid=grid), store, False, lambda *_: None)
    torch.set_num_threads(threads)

    keys = [run.groups_key for run in runs]
    assert len(set(keys)) == len({run.signature for run in runs}) == 4
    assert sorted(keys) == [key for key in store.list("s/groups") if key.endswith(".json")]
    records = [json.loads(store.get(key)) for key in keys]
    assert [record["by"] for record in records] == ["feature_count"] * 2 + ["edge_density"] * 2
    assert [run.values_key is None for run in runs] == [True, True, False, False]
    found = load_values(store, DATA.key, runs[2].values_key)
    assert np.array_equal(found, image_scores.edge_density(images))

    outcome = SweepResults(Path(store.join("s")))
    assert outcome.problems == []
    (real,) = outcome.real
    assert (real.name, real.images) == ("a", 6)  # held out
    assert 1 <= real.score <= 2  # of two classes
    # each task waits for room: the classifier, the real images, the values to group by
    one = {"CPU": 1}
    assert sorted(waits, key=len) == [one, one, one | {"GPU": 0}]


def test_selected_images_are_grouped_and_the_others_are_listed(
    store: Store, images: np.ndarray
) -> None:
    store.put("s/left-out/of-settings-since-changed.csv", b"")
    grid = {
        "mode": ["ascending", "conventional"],
        "seed": [0],
        "select.by": ["none", "edge_density", "random"],
        "select.keep": [0.25, 0.5],
    }
    threads = torch.get_num_threads()
    runs = preparation.prepare_runs(sweep(grid=grid), store, False, lambda *_: None)
    torch.set_num_threads(threads)

    assert len({run.signature for run in runs}) == len(runs) == 2 * (1 + 2 + 2)
    edges = image_scores.edge_density(images)
    lists = [f"s/left-out/{name}" for name in os.listdir(store.join("s/left-out"))]
    assert len(lists) == 4
    for run in runs:
        select = run.cell.method.select
        record = json.loads(store.get(run.groups_key))
        sizes = sum(group["size"] for group in record["groups"])
        if select.by == "none":
            assert (run.selected_key, sizes, record["selected"]) == (None, 40, "")
            continue
        kept = load_values(store, DATA.key, run.selected_key) == 1
        assert sizes == kept.sum() == 40 * select.keep
        assert kept[::2].sum() == kept.sum() / 2  # as many of either label
        assert f"{select.keep:.0%} of each label by {select.by}" in record["selected"]
        left_out = [f"{n}.png" for n in np.flatnonzero(~kept)]
        tables = [pd.read_csv(store.join(key)) for key in lists if select.by in key]
        assert left_out in [table["image_id"].tolist() for table in tables]
        if select.by == "edge_density":
            assert edges[::2][kept[::2]].min() >= edges[::2][~kept[::2]].max()


def test_each_way_of_scoring_measures_real_images(store: Store) -> None:
    grid = {"mode": ["ascending"], "seed": [0], "score.count": [20, 30]}
    metrics = sweep(grid=grid).score.model_copy(update={"metrics": ["fid"]})
    chosen = sweep(grid=grid, score=metrics.model_dump())
    threads = torch.get_num_threads()
    runs = preparation.prepare_runs(chosen, store, False, lambda *_: None)
    torch.set_num_threads(threads)

    assert all(run.real_key and store.exists(run.real_key) for run in runs)
    records = SweepResults(Path(store.join("s"))).real
    assert len({record.protocol for record in records}) == 2
    assert [record.metrics_images for record in records] == [(6, 34)] * 2
    assert all(record.metrics["fid"] >= 0 for record in records)


def test_new_labels_are_of_another_classifier(store: Store) -> None:
    def named(labels: str) -> str:
        table = pd.DataFrame({"feature_count": [1, 2, 3, 4], "label": list(labels)})
        store.put("features/a-0/features.parquet", table.to_parquet(index=False))
        return classifier.classifier_name(store, [DATA.model_copy(update={"images": 4})])

    assert named("xyxy") == named("xyxy") != named("xxyy")


@pytest.mark.parametrize("labels", [(), ("x",)])
def test_a_classifier_needs_two_labels(store: Store, labels: tuple[str, ...]) -> None:
    with pytest.raises(
        UserError, match=r"score\.trained_on: .* 2 labels or more, but a has (none|a/x);"
    ):
        classifier.classifier_name(store, [DATA.model_copy(update={"classes": labels})])


def test_a_file_of_weights_that_is_a_pipe_is_refused(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    score = {"weights": str(tmp_path / "pipe"), "count": 20, "splits": 2}
    with pytest.raises(UserError, match=r"score: .*/pipe is not a file"):
        preparation.prepare_runs(sweep(score=score), store, False, lambda *_: None)


@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends "
    "with the same bytes",
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=["full", "closed"])
def test_a_full_or_closed_disk_at_any_write_costs_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    train = partial(classifier.train_classifier, epochs=1)
    monkeypatch.setattr(classifier, "train_classifier", train)
    grid = {"mode": ["ascending"], "seed": [0], "groups.by": ["feature_count", "random"]}
    threads = torch.get_num_threads()

    def prepare(store: Store) -> tuple[Any, dict[str, bytes]]:
        runs = preparation.prepare_runs(sweep(grid=grid), store, False, lambda *_: None)
        keys = [key for key in store.list() if "tfevents" not in key]  # these hold the time
        return runs, {key: store.get(key) for key in keys}

    def reset() -> None:
        for key in ("s", "features/a-0/scores", "features/a-0/real"):
            shutil.rmtree(store.join(key), ignore_errors=True)

    _, writes = check_every_write(prepare, store.root, code, reset)
    assert writes >= 7
    torch.set_num_threads(threads)


def test_labels_are_in_the_signature_of_a_conditional_run(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signed(labels: list[str | None], conditional: bool) -> str:
        counted = put_counted(store, "features/a-0", images, range(40), labels, digest="0a1b")
        monkeypatch.setattr(preparation.DataSetBuilder, "build", lambda _: counted)
        content = sweep(
            gan={"network": "sngan", "conditional": conditional},
            grid={"mode": ["conventional"], "seed": [0]},
            score={"classifier": "packaged", "count": 20, "splits": 2},
        )
        monkeypatch.setattr(preparation._Preparation, "_measure_real_images", lambda *_: None)
        (run,) = preparation.prepare_runs(content, store, False, lambda *_: None)
        assert run.data_digest == "0a1b"
        return run.signature

    one, other = ["x", "y"] * 20, ["y", "x"] * 20
    assert signed(one, False) == signed(other, False)
    assert len({signed(one, False), signed(one, True), signed(other, True)}) == 3
    with pytest.raises(UserError, match=r"gan\.conditional: 1 of the 40 images of data\.a have no"):
        signed([None, *one[1:]], True)


def test_held_out_images_are_trained_on_by_nothing(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = {"classifier": "trained", "trained_on": ["a"], "count": 20, "splits": 2}
    score |= {"metrics": ["fid", "authpct"]}

    def prepared(share: float) -> Any:
        data = preparation.DataSetBuilder.build(None).model_copy(update={"held_out": share})
        with monkeypatch.context() as patch:
            patch.setattr(preparation.DataSetBuilder, "build", lambda _: data)
            grid = {"mode": ["ascending"], "seed": [0]}
            threads = torch.get_num_threads()
            content = sweep(grid=grid, score=score)
            (run,) = preparation.prepare_runs(content, store, False, lambda *_: None)
            torch.set_num_threads(threads)
        (real,) = SweepResults(Path(store.join("s"))).real
        return run, json.loads(store.get(run.groups_key)), real, data

    plain, all_groups, usual, _ = prepared(0.0)
    run, groups, real, data = prepared(0.25)
    split = held_out(store, data)
    held = split.sum()
    assert 5 < held < 15
    assert plain.selected_key is None
    assert np.array_equal(load_values(store, DATA.key, run.selected_key) > 0, ~split)
    counts = np.arange(40)[~split]
    for record, grouped in ((groups, counts), (all_groups, np.arange(40))):
        assert sum(group["size"] for group in record["groups"]) == len(grouped)
        assert [*map(int, record["histogram"])] == grouped.tolist()
    assert groups["selected"] == "the images not held out"
    assert run.signature != plain.signature
    assert run.signature == prepared(0.25)[0].signature
    assert classifier.unseen(store, [data], data)[split].all()
    assert run.classifier_key != plain.classifier_key

    # held out against all others, at the same number as the rows of generated images
    assert (real.images, real.metrics_images, real.held_out) == (held, (held, 40 - held), 0.25)
    assert usual.metrics_images == (6, 34)  # that the classifier was not fitted to
    settings = ScoreSettings.model_validate(score)
    network = load_classifier(settings, torch.device("cpu"), store.local(run.classifier_key))
    training = feature_file.read(str(store.local(run.real_key)), network)
    features, _ = network.features_and_logits(torch.from_numpy(images[~split]))
    assert len(training) == 40 - held
    assert training.features.sum().item() == pytest.approx(features.sum().item(), rel=1e-4)
    assert real.metrics == measure("fid", training, training.held_out) | measure(
        "authpct", training, training.held_out
    )
    nearest = image_quality.nearest(images[split], images[~split]).mean()
    assert real.qualities.nearest_training == pytest.approx(nearest)
    copied = rescore.training_images(store.root, DATA.key, 0.25)
    assert sorted(copied.sum((1, 2, 3))) == sorted(images[~split].sum((1, 2, 3)))


def test_a_selection_is_made_of_the_images_that_are_not_held_out(store: Store) -> None:
    data = preparation.DataSetBuilder.build(None).model_copy(update={"held_out": 0.25})
    settings = SelectSettings(by="feature_count", keep=0.5)
    key = image_values.select(data, settings, np.arange(40.0), store)
    kept, split = load_values(store, DATA.key, key) > 0, held_out(store, data)
    assert not (kept & split).any()
    assert abs(kept.sum() - (~split).sum() / 2) <= 1  # half of each label
