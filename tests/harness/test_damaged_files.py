"""Every file that is read back, cut, altered or of another version: refused, or read as it was.

A table of kinds. That a damaged checkpoint costs time and no bytes is shown in test_trial.py
and test_exactness.py, where runs are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed import put_counted

from featgan import checkpoint
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.gans.generator_file import generator_bytes, load_generator
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from featgan.scores import feature_file
from featgan.scores.small_cnn import KIND, load_trained, train_classifier
from harness.counting.shards import Block, Blocks
from harness.preparation.image_values import ImageValues
from harness.records.data_set import (
    Shard,
    check,
    load_rejected,
    load_values,
    read_data_set,
)
from harness.records.run_record import RunRecord
from harness.records.sweep_records import (
    CountStatistics,
    DataRecord,
    GroupsRecord,
    RealRecord,
    Rescored,
    SweepRecord,
)
from harness.records.sweep_results import SweepResults
from harness.storage.store import Store

pytestmark = pytest.mark.guarantee(
    "Files that are read back",
    "A file that is cut, altered or of another version is refused with one line, or made again",
)

FORMATS = (b'"format": 1', b'"format": 2')
LATER = KIND.encode(), KIND[:-1].encode() + b"9"
IDS = [f"{n}.png" for n in range(8)]


class Refused(Exception):
    """Any of the ways in which a file is refused; its text."""


def refusing(read: Callable[[], Any]) -> Callable[[], Any]:
    """The same reader, with UserError as Refused."""

    def refused() -> Any:
        try:
            return read()
        except UserError as error:
            raise Refused(str(error)) from error

    return refused


@dataclass(frozen=True)
class Kind:
    """A file, and what reads it; raises Refused, or gives what the file says."""

    path: Path
    read: Callable[[], Any]
    versioned: tuple[bytes, bytes] | None = None
    """What in it names the version, and another version."""


def features(folder: Path) -> dict[str, Kind]:
    """A counted data set: table, images, and what says how."""
    store, key = Store(str(folder)), "features/a-0"
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), np.uint8)
    rejected = b'"image_id","reason"\n"bad.png","empty file"\n"worse.png","empty file"\n'
    counted = put_counted(store, key, images, range(8), ["x"] * 8, rejected=rejected)

    @refusing
    def read() -> str:
        check(store, counted)
        return "whole"

    groups, about = GroupSettings(by="random"), FeatureSettings()
    values = ImageValues(counted, groups, about, store, False, lambda *_: None).make()

    @refusing
    def scores() -> list[float]:
        return load_values(store, key, values).tolist()

    home = folder / key
    return {
        "feature table": Kind(home / "features.parquet", read),
        "pack shard": Kind(home / "pack" / "00000.npy", read),
        "data set": Kind(
            home / "dataset.json",
            refusing(lambda: read_data_set(store, key)),
            (b'"format": 1', b'"format": 2'),
        ),
        "rejected list": Kind(
            home / "rejected.csv", refusing(lambda: load_rejected(store, counted).to_dict("list"))
        ),
        "image values": Kind(folder / values, scores),
    }


def outcome(folder: Path, make_run: Callable[..., RunRecord]) -> dict[str, Kind]:
    """What tables are made from."""
    home = folder / "sweep"
    cell = {"data": "a", "mode": "descending", "seed": 0}
    run = make_run(cell, [[1.0, 2.0]], [[1]], images=[8])
    run = run.model_copy(update={"generator_sha256": "0a1b"})
    quality = dict.fromkeys(("outlines", "colour", "colourfulness", "diversity"), 1.0)
    quality |= {"images": 4, "near_duplicates": 0.0, "nearest_training": 1.0}
    counted = CountStatistics(images=4, mean=9.0, sd=1.0)
    again = Rescored(
        generator_sha256="0a1b", images=9, protocol="p", score=2.5, score_std=0.1,
        same_protocol="p", fresh_scores=[2.0], last_fresh_scores=[], score_as_real=2.4,
        metrics_as_real={}, qualities=quality, feature_counts=counted,
        device="cpu",
    )  # fmt: skip
    real = RealRecord(
        name="a", digest="d", protocol="p", images=8, score=2.5, score_std=0.1, qualities=quality,
        feature_counts=counted,
    )  # fmt: skip
    data = DataRecord(name="a", digest="d", images=8)
    counts = np.array([10, 10, 11, 30, 31, 60, 61, 61])
    groups = FeatureGroups.fit(counts, GroupSettings(k=2))
    files = {
        "run record": (f"runs/{run.run}/run.json", run.to_json()),
        "re-scored": (f"runs/{run.run}/rescored.json", again.to_json()),
        "real": ("real/a-0.json", real.to_json()),
        "data record": ("data/a.json", data.to_json()),
        "sweep": ("sweep.json", SweepRecord(name="s", cells=[cell], runs=[run.run]).to_json()),
        "groups": (
            "groups/a-kmeans-k2.json",
            GroupsRecord(data="a", label="feature count", **vars(groups)).to_json(),
        ),
    }
    for name, content in files.values():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)

    @refusing
    def read() -> Any:
        found = SweepResults(home)
        if found.problems:
            raise Refused("; ".join(found.problems))
        return vars(found) | {"folder": None}

    version = {"groups": (b'"format": 2', b'"format": 3')}
    return {
        kind: Kind(home / name, read, version.get(kind, FORMATS))
        for kind, (name, _) in files.items()
    }


def others(folder: Path) -> dict[str, Kind]:
    """Checkpoint, classifier and its features, generator, block of a count."""
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8)
    trained = train_classifier(images, np.arange(8) % 2, ["x", "y"], seed=0, epochs=1)
    (folder / "c.safetensors").write_bytes(trained)
    (folder / "checkpoint.pt").write_bytes(checkpoint.dump({"a": torch.arange(100), "b": "text"}))

    @refusing
    def classifier() -> str:
        return load_trained(folder / "c.safetensors", torch.device("cpu")).digest

    trained = load_trained(folder / "c.safetensors", torch.device("cpu"))
    kept = feature_file.dump(torch.arange(640.0).reshape(10, 64), trained, "f")
    (folder / "f.safetensors").write_bytes(kept)
    gan = GanSettings(width=1, latent=2)
    network, _ = build(gan, 32, seed=0)
    (folder / "g.safetensors").write_bytes(generator_bytes(network, gan, 32))

    @refusing
    def of_real() -> list[list[float]]:
        return feature_file.read(str(folder / "f.safetensors"), trained).features.tolist()

    @refusing
    def generator() -> Any:
        found = load_generator(folder / "g.safetensors")
        weights = {name: value.tolist() for name, value in found.network.state_dict().items()}
        return found.gan, found.image_size, weights

    @refusing
    def state() -> Any:
        try:
            found = checkpoint.load((folder / "checkpoint.pt").read_bytes())
        except checkpoint.Damaged as error:
            raise Refused(str(error)) from error
        return found | {"a": found["a"].tolist()}

    store = Store(str(folder))
    record = Block(
        key="count", number=0, digests=[f"{i:064x}" for i in range(8)], counts=[*range(7), -1],
        problems={7: "damaged PNG"}, shard=Shard("0.npy", 7, "0"),
    )  # fmt: skip
    store.put("count/pack/0.npy", b"pixels")
    record.put(store)

    @refusing
    def block() -> Any:
        found = Blocks(store, "count", 8, 8)
        if found.missing():
            raise Refused("counted again")
        return found.counts.tolist(), found.sha256.tolist(), found.problems, found.shards

    return {
        "classifier": Kind(folder / "c.safetensors", classifier, LATER),
        "real features": Kind(folder / "f.safetensors", of_real, (b"features 5", b"features 6")),
        "generator": Kind(folder / "g.safetensors", generator, (b"generator 1", b"generator 2")),
        "checkpoint": Kind(folder / "checkpoint.pt", state, None),
        "block": Kind(folder / "count" / "blocks" / "00000.json", block, FORMATS),
    }


KINDS = [
    *("feature table", "pack shard", "data set"),
    *("run record", "re-scored", "real", "sweep", "groups", "classifier", "checkpoint", "block"),
    *("rejected list", "image values", "data record", "real features", "generator"),
]


@pytest.fixture
def kinds(tmp_path: Path, make_run: Callable[..., RunRecord]) -> dict[str, Kind]:
    found = features(tmp_path / "f") | outcome(tmp_path / "o", make_run) | others(tmp_path / "x")
    assert sorted(found) == sorted(KINDS)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_refused_in_one_line_or_read_as_it_was(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    whole, chance = kind.path.read_bytes(), random.Random(0)
    expected = kind.read()
    refusals: list[str] = []

    def damaged(data: bytes, must: bool) -> None:
        kind.path.write_bytes(data)
        try:
            assert kind.read() == expected
            assert not must, f"{name} was read from {len(data)} of {len(whole)} bytes"
        except Refused as refusal:
            refusals.append(str(refusal))

    for length in (0, 1, len(whole) // 3, len(whole) - 2):
        damaged(whole[:length], must=True)
    for _ in range(40):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        damaged(bytes(content), must=False)
    assert len(refusals) > 20
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals)
    if kind.versioned:
        assert whole.count(kind.versioned[0]) >= 1
        damaged(whole.replace(*kind.versioned, 1), must=True)
    kind.path.write_bytes(whole)
    assert kind.read() == expected


def test_a_pack_of_another_data_set_is_refused(tmp_path: Path) -> None:
    features(tmp_path)
    store = Store(str(tmp_path))
    put_counted(store, "features/b-0", np.zeros((8, 3, 8, 8), np.uint8), range(8))
    store.put("features/a-0/pack/00000.npy", store.get("features/b-0/pack/00000.npy"))
    with pytest.raises(UserError, match=r"pack/00000\.npy is not the file .*; remove this folder"):
        check(store, read_data_set(store, "features/a-0"))
    store.delete("features/a-0/pack/00000.npy")
    with pytest.raises(UserError, match="a file of its pack is missing"):
        check(store, read_data_set(store, "features/a-0"))


def test_a_data_set_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    features(tmp_path)
    store = Store(str(tmp_path))
    store.put("features/b-1/dataset.json", store.get("features/a-0/dataset.json"))
    with pytest.raises(UserError, match=r"b-1: dataset\.json is that of features/a-0; remove"):
        read_data_set(store, "features/b-1")


def test_values_of_another_order_are_refused(tmp_path: Path) -> None:
    kind, store = features(tmp_path)["image values"], Store(str(tmp_path))
    kind.path.with_name("other.parquet").write_bytes(kind.path.read_bytes())
    with pytest.raises(UserError, match="damaged, or the content of another file; remove it, and"):
        load_values(store, "features/a-0", "features/a-0/scores/other.parquet")


@pytest.mark.guarantee(
    "Files that are read back",
    "A record of another run, generator or data set is left out and named",
)
def test_a_measurement_of_another_generator_is_left_out(
    tmp_path: Path, make_run: Callable[..., RunRecord]
) -> None:
    kinds = outcome(tmp_path, make_run)
    path = kinds["re-scored"].path
    again = json.loads(path.read_bytes())
    del again["sha256"]
    path.write_text(json.dumps(again | {"generator_sha256": "ffff"}))
    with pytest.raises(Refused, match="left out: measured of another generator than the run's"):
        kinds["re-scored"].read()


def test_a_damaged_or_foreign_record_is_not_a_finished_run(
    tmp_path: Path, make_run: Callable[..., RunRecord]
) -> None:
    from harness.runs.status import read_records

    def read_record(store: Store, run: Any) -> Any:
        ((_, record),) = read_records(store, [run])
        return record

    class Known:
        def __init__(self, name: str) -> None:
            self.name, self.folder = name, f"s/runs/{name}"

    record = make_run({"data": "a", "mode": "m", "seed": 0}, [[1.0]], [[1]], images=[8])
    store, run = Store(str(tmp_path)), Known(record.run)
    data = record.to_json()
    store.put(f"{run.folder}/run.json", data)
    assert read_record(store, run) == record
    store.put(f"{run.folder}/run.json", data.replace(b"1.0", b"9.0", 1))
    assert read_record(store, run) is None
    store.put("s/runs/other/run.json", data)
    assert read_record(store, Known("other")) is None
    later = json.loads(data)
    del later["sha256"]
    store.put(f"{run.folder}/run.json", json.dumps(later | {"format": 2}).encode())
    with pytest.raises(UserError, match="another version of featgan wrote this run"):
        read_record(store, run)
