"""Every file that is read back, cut, altered or of another version: refused, or read as it was.

A table of kinds. That a damaged checkpoint costs time and no bytes is shown in test_trial.py
and test_exactness.py, where runs are.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from featgan import checkpoint
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.gans.generator_file import generator_bytes, load_generator
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from featgan.images.pack import ImagePack
from featgan.scores import feature_file
from featgan.scores.small_cnn import KIND, load_trained, train_classifier
from harness.counting.cache import known_counts
from harness.counting.shards import Parts
from harness.preparation import image_values
from harness.records.data_set import (
    FORMAT,
    DataSet,
    check,
    load_rejected,
    read_data_set,
    read_protocol,
)
from harness.records.image_values import load_values
from harness.records.run_record import RunRecord
from harness.records.sweep_records import (
    DataRecord,
    GroupsRecord,
    RealRecord,
    RealScore,
    Rescored,
    SweepRecord,
)
from harness.records.sweep_results import SweepResults
from harness.storage.sealed import seal
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
    made = folder / "made"
    ImagePack.write(made, IDS, [images])
    store.put_tree(made, f"{key}/pack")
    table = pd.DataFrame({"image_id": IDS, "sha256": IDS, "feature_count": range(8), "label": "x"})
    data = table.to_parquet(index=False)
    store.put(f"{key}/features.parquet", data)
    rejected = b'"image_id","reason"\n"bad.png","empty file"\n"worse.png","empty file"\n'
    store.put(f"{key}/rejected.csv", rejected)
    counted = DataSet(
        *("a", key, "d", 8, 2, 0, ("x",), None),
        table_sha256=hashlib.sha256(data).hexdigest(),
        rejected_sha256=hashlib.sha256(rejected).hexdigest(),
    )
    about = {"format": FORMAT} | vars(counted) | {"classes": ["x"]}
    store.put(f"{key}/dataset.json", seal(about))
    protocol = {"format": FORMAT, "key": key, "weights": "random"}
    store.put(f"{key}/protocol.json", seal(protocol))

    @refusing
    def read() -> str:
        check(store, counted)
        return "whole"

    groups, about = GroupSettings(by="random"), FeatureSettings()
    values = image_values.make(counted, groups, about, store, False, lambda *_: None)

    @refusing
    def scores() -> list[float]:
        return load_values(store, key, values).tolist()

    home = folder / key
    return {
        "feature table": Kind(home / "features.parquet", read),
        "pack shard": Kind(home / "pack" / "00000.npy", read),
        "pack index": Kind(home / "pack" / "index.parquet", read),
        "pack digests": Kind(
            home / "pack" / "digests.json", read, (b'"format": 1', b'"format": 2')
        ),
        "data set": Kind(
            home / "dataset.json",
            refusing(lambda: read_data_set(store, key)),
            (b'"format": 1', b'"format": 2'),
        ),
        "rejected list": Kind(
            home / "rejected.csv", refusing(lambda: load_rejected(store, counted).to_dict("list"))
        ),
        "protocol": Kind(
            home / "protocol.json",
            refusing(lambda: read_protocol(store, key)),
            (b'"format": 1', b'"format": 2'),
        ),
        "image values": Kind(folder / values, scores),
    }


def outcome(folder: Path, make_run: Callable[..., RunRecord]) -> dict[str, Kind]:
    """What tables are made from."""
    home = folder / "sweep"
    cell = {"data": "a", "mode": "descending", "seed": 0}
    run = make_run(cell, [[1.0, 2.0]], [[1]], images=[8])
    run = run.model_copy(update={"generator_sha256": "0a1b"})
    quality = dict.fromkeys(("sharpness", "saturation", "colourfulness", "diversity"), 1.0)
    quality |= {"images": 4, "near_duplicates": 0.0, "nearest_training": 1.0}
    again = Rescored(
        generator_sha256="0a1b", protocol="p", score=2.5, score_std=0.1, same_protocol="p",
        fresh_scores=[2.0], qualities=quality, feature_counts=None, device="cpu", seconds=1.0,
    )  # fmt: skip
    real = RealRecord(name="a", digest="d", qualities=quality, feature_counts=None)
    data = DataRecord(name="a", digest="d", images=8)
    ceiling = RealScore(name="a", digest="d", protocol="p", images=8, score=2.5, score_std=0.1)
    counts = np.array([10, 10, 11, 30, 31, 60, 61, 61])
    groups = FeatureGroups.fit(counts, GroupSettings(k=2))
    files = {
        "run record": (f"runs/{run.run}/run.json", run.to_json()),
        "re-scored": (f"runs/{run.run}/rescored.json", again.to_json()),
        "real": ("real/a.json", real.to_json()),
        "data record": ("data/a.json", data.to_json()),
        "ceiling": ("ceilings/a-0.json", ceiling.to_json()),
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
        found = SweepResults.read(home)
        if found.problems:
            raise Refused("; ".join(found.problems))
        return vars(found) | {"folder": None}

    version = {"groups": (b'"format": 2', b'"format": 3')}
    return {
        kind: Kind(home / name, read, version.get(kind, FORMATS))
        for kind, (name, _) in files.items()
    }


def others(folder: Path) -> dict[str, Kind]:
    """Checkpoint, classifier and its features, generator, part of a count."""
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
    parts = Parts(store, "count", 8, 8)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in IDS]
    parts.add(
        {
            "index": np.arange(8),
            "sha256": np.array(digests),
            "problem": np.array([""] * 7 + ["damaged PNG"]),
            "unreadable": np.zeros(8, bool),
            "count": np.array([*range(7), -1], np.int16),
            "image": images,
        }
    )

    def part() -> Any:
        data = (folder / "count" / "parts" / "00000.npz").read_bytes()
        try:
            found = Parts(store, "count", 8, 8)
            if not found.counted.all():
                raise Refused("counted again")
            return found.counts.tolist(), found.sha256.tolist(), found.problems
        finally:
            store.put("count/parts/00000.npz", data)

    return {
        "classifier": Kind(folder / "c.safetensors", classifier, LATER),
        "real features": Kind(folder / "f.safetensors", of_real, (b"features 3", b"features 4")),
        "generator": Kind(folder / "g.safetensors", generator, (b"generator 1", b"generator 2")),
        "checkpoint": Kind(folder / "checkpoint.pt", state, (b"checkpoint 1", b"checkpoint 9")),
        "part": Kind(folder / "count" / "parts" / "00000.npz", part),
    }


KINDS = [
    *("feature table", "pack shard", "pack index", "pack digests", "data set", "protocol"),
    *("run record", "re-scored", "real", "sweep", "groups", "classifier", "checkpoint", "part"),
    *("rejected list", "image values", "data record", "ceiling", "real features", "generator"),
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
    images = np.zeros((8, 3, 8, 8), np.uint8)
    ImagePack.write(tmp_path / "other", [f"other{n}.png" for n in range(8)], iter([images]))
    store.put_tree(tmp_path / "other", "features/a-0/pack")
    table = (tmp_path / "features/a-0/features.parquet").read_bytes()
    counted = DataSet(
        "a", "features/a-0", "d", 8, 0, 0, ("x",), None, hashlib.sha256(table).hexdigest()
    )
    with pytest.raises(UserError, match="its images are another data set's; remove this folder"):
        check(store, counted)


def test_counts_of_a_damaged_table_are_not_taken_for_known(tmp_path: Path) -> None:
    store, key, chance = Store(str(tmp_path)), "features/a-0", random.Random(0)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in IDS]
    table = pd.DataFrame({"sha256": digests, "feature_count": range(8)}).to_parquet(index=False)
    data_set = seal({"table_sha256": hashlib.sha256(table).hexdigest()})
    for name, content in (("features.parquet", table), ("dataset.json", data_set)):
        store.put(f"{key}/{name}", content)
    store.put(f"{key}/counting.json", seal({}))

    def known() -> list[int]:
        return sorted(known_counts(store, {}, {})[0].counts.tolist())

    assert known() == [*range(8)]
    for _ in range(40):
        content = bytearray(table)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        store.put(f"{key}/features.parquet", bytes(content))
        assert known() == []
    store.put(f"{key}/features.parquet", table)
    store.put(f"{key}/dataset.json", data_set.replace(b"a", b"b", 1))
    assert known() == []
    store.put(f"{key}/dataset.json", data_set)
    for counting in (b"", b"{}", seal({})[:-5], seal({"weights": "others"})):
        store.put(f"{key}/counting.json", counting)
        assert known() == []


def test_a_data_set_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    features(tmp_path)
    store = Store(str(tmp_path))
    for name, read in (("dataset.json", read_data_set), ("protocol.json", read_protocol)):
        store.put(f"features/b-1/{name}", store.get(f"features/a-0/{name}"))
        with pytest.raises(UserError, match=f"b-1: {name} is that of features/a-0; remove"):
            read(store, "features/b-1")


def test_a_part_in_the_place_of_another_is_counted_again(tmp_path: Path) -> None:
    others(tmp_path)
    store = Store(str(tmp_path))
    for key, name in (("count", "00001.npz"), ("another", "00000.npz")):
        store.put(f"{key}/parts/{name}", store.get("count/parts/00000.npz"))
    assert sum(map(len, Parts.left_in(store, "count"))) == 7
    assert not [*Parts.left_in(store, "another")]
    assert not Parts(store, "another", 8, 8).counted.any()


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
    from harness.runs.status import read_record

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
