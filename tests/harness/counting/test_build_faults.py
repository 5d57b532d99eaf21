"""A count whose storage fails at any write: the next ends the same, and counts no part twice."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from featgan.errors import UserError
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.images.pack import ImagePack
from harness.counting import build, shards, workers
from harness.counting.build import prepare
from harness.counting.cache import Known
from harness.preparation import image_values
from harness.records.data_set import DataSet, check, load_rejected, load_table
from harness.records.image_values import load_values
from harness.sources import FolderSource
from harness.sources import folder as folders
from harness.storage.lock import SweepLock
from harness.storage.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)
AT_RANDOM = GroupSettings(by="random")
IMAGES = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven noisy images and an empty file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 20, 20, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"")
    return folder


@dataclass
class Done:
    """Indices of images that were decoded, and of those that the network saw."""

    decoded: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Done:
    """Counting without Ray, two images to a part; a network that tells the largest pixel."""
    done = Done()

    class Network:
        def count(self, inputs: np.ndarray) -> np.ndarray:
            done.seen += done.decoded[-1:] * len(inputs)
            return inputs.max(axis=(1, 2, 3)) if len(inputs) else np.zeros(0)

    def count(rows: pd.DataFrame, *how: Any) -> Iterator[dict[str, np.ndarray]]:
        source, settings, image_size, known, *_ = how
        decoder = workers.Decoder(source, settings.input_size, image_size, known)
        counter = workers.Counter(settings, [], decoder, gpu=False)
        for _, row in rows.iterrows():
            done.decoded.append(int(row["index"]))
            yield counter({"index": np.array([row["index"]]), "location": [row["location"]]})

    monkeypatch.setattr(workers, "count", count)
    monkeypatch.setattr(workers, "counter", lambda *_: Network())
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(shards, "SMALLEST", 2)
    return done


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Names of images that nobody may read."""
    read, closed = folders.read, {b"03.png"}

    def guarded(location: bytes) -> bytes:
        if os.path.basename(location) in closed:
            raise PermissionError(13, "Permission denied")
        return read(location)

    monkeypatch.setattr(folders, "read", guarded)
    return closed


def nothing(*_: Any) -> None:
    pass


def counted(
    photos: Path, store: Store, max_rejected: float = 0.5, **more: Any
) -> tuple[DataSet, list[Any]]:
    data = prepare(
        "photos",
        FolderSource(source="folder", path=str(photos), **more),
        FEATURES,
        16,
        store,
        actors=None,
        gpu=False,
        max_rejected=max_rejected,
        progress=nothing,
    )
    check(store, data)
    pack = ImagePack.open(store.local(f"{data.key}/pack"))
    table, rejected = load_table(store, data.key), load_rejected(store, data)
    images = pack.rows(np.arange(len(pack))).tolist()
    return data, [table.to_dict("list"), rejected.to_dict("list"), images]


@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends "
    "with the same bytes",
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=["full", "closed"])
def test_a_full_or_closed_disk_at_any_write_costs_nothing(
    photos: Path, tmp_path: Path, done: Done, failing: type[Any], code: int
) -> None:
    root = str(tmp_path / "store")
    watched = failing(root, code)
    data, expected = counted(photos, watched)
    assert (data.images, data.rejected) == (IMAGES - 1, 1)
    # six parts; what they were made with, three tables, the pack, the protocol, the end; the lock
    # taken; what is deleted before and after, and the lock
    assert watched.writes == 6 + 7 + 1 + (3 if code == errno.EACCES else 0)
    for nth in range(1, watched.writes):
        Store(root).delete("features")
        done.decoded.clear()
        with pytest.raises(OSError, match=os.strerror(code)):
            counted(photos, failing(root, code, nth))
        Store(root).delete(f"{data.key}/lock.json")  # its holder would have ended
        assert counted(photos, Store(root)) == (data, expected), f"write {nth}"
        of_lost_part = len(done.decoded) - IMAGES
        assert of_lost_part <= 2, f"write {nth}: {of_lost_part} images were counted twice"
        assert not [key for key in Store(root).list("features") if "/parts/" in key]


def test_an_unreadable_image_costs_no_other_a_second_count(
    photos: Path, tmp_path: Path, done: Done, closed: set[bytes]
) -> None:
    store = Store(str(tmp_path / "store"))
    first, _ = counted(photos, store)
    assert (first.images, first.rejected, first.unreadable) == (IMAGES - 2, 2, 1)
    done.seen.clear()
    done.decoded.clear()
    assert counted(photos, store)[0] == first
    assert done.seen == done.decoded == []  # nor a second look

    before = image_values.make(first, AT_RANDOM, FEATURES, store, False, nothing)
    closed.clear()
    mended, _ = counted(photos, store)
    assert (mended.key, mended.images, mended.unreadable) == (first.key, IMAGES - 1, 0)
    assert done.seen == [3]
    after = image_values.make(mended, AT_RANDOM, FEATURES, store, False, nothing)
    lengths = [len(load_values(store, first.key, key)) for key in (before, after)]
    assert lengths == [IMAGES - 2, IMAGES - 1]


def test_a_known_count_makes_no_image_of_bytes_that_are_refused(
    photos: Path, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version, or another Pillow, may have read what this one refuses."""
    known = Known.of(
        pd.DataFrame(
            {
                "sha256": [hashlib.sha256(p.read_bytes()).hexdigest() for p in photos.iterdir()],
                "feature_count": range(IMAGES),
            }
        )
    )
    monkeypatch.setattr(build, "known_counts", lambda *_: (known, []))
    data, (_, rejected, _) = counted(photos, Store(str(tmp_path / "store")))
    assert (data.images, data.rejected, done.seen) == (IMAGES - 1, 1, [])
    assert rejected["image_id"] == ["05.png"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no answer\nat all")])
def test_what_a_reader_failed_on_is_tried_again(
    photos: Path, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(location: bytes) -> bytes:
        if location.endswith(b"07.png"):
            raise error
        return (photos / os.fsdecode(os.path.basename(location))).read_bytes()

    monkeypatch.setattr(folders, "read", read)
    data, (_, rejected, _) = counted(photos, Store(str(tmp_path / "store")))
    assert (data.rejected, data.unreadable) == (2, 1)
    why = str(error).partition("\n")[0] or "MemoryError"
    assert rejected["reason"][1] == f"cannot be read: {why}"


@pytest.mark.guarantee(
    "Images",
    "A data set stays until its successor is written; unfinished counts are removed under the "
    "lock only",
)
def test_a_recount_that_ends_early_loses_nothing(
    photos: Path, tmp_path: Path, done: Done, closed: set[bytes], failing: type[Any]
) -> None:
    before, root = tmp_path / "before", str(tmp_path / "store")
    first, content = counted(photos, Store(str(before)))
    done.seen.clear()
    closed.clear()
    shutil.copytree(before, root)
    watched = failing(root)
    mended = counted(photos, watched)
    assert mended[0].images == first.images + 1
    for nth in range(1, watched.writes):
        shutil.rmtree(root)
        shutil.copytree(before, root)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            counted(photos, failing(root, errno.ENOSPC, nth))
        Store(root).delete(f"{first.key}/lock.json")  # its holder would have ended
        assert counted(photos, Store(root)) == mended, f"write {nth}"
    assert {*done.seen} == {3}  # no other was counted again

    shutil.rmtree(root)
    shutil.copytree(before, root)
    closed |= {b"%02d.png" % number for number in range(4, IMAGES)}  # the storage goes away
    with pytest.raises(UserError, match=r"7 of the first 11 .*/parts/rejected\.csv"):
        counted(photos, Store(root))
    closed.clear()
    closed.add(b"03.png")
    assert counted(photos, Store(root)) == (first, content)


@pytest.mark.guarantee(
    "Images",
    "A data set stays until its successor is written; unfinished counts are removed under the "
    "lock only",
)
def test_left_parts_are_removed_unless_a_count_runs(
    photos: Path, tmp_path: Path, done: Done
) -> None:
    store = Store(str(tmp_path / "store"))
    data, _ = counted(photos, store)
    left = f"{data.key}/parts/00000.npz"
    store.put(left, b"left behind")
    with SweepLock(store, data.key, notice=nothing):
        with pytest.raises(UserError, match="is being run by process"):
            counted(photos, store)
        assert store.exists(left)
    assert counted(photos, store)[0] == data
    assert not store.exists(left)


def test_so_many_per_cent_may_be_bad_and_not_one_less(
    photos: Path, tmp_path: Path, done: Done
) -> None:
    """29 of a hundred, which floats take for 28.999999999999996."""
    good = (photos / "00.png").read_bytes()
    for number in range(100):
        (photos / f"{number:02d}.png").write_bytes(good if number >= 29 else b"")
    data, _ = counted(photos, Store(str(tmp_path / "store")), max_rejected=0.29)
    assert (data.images, data.rejected) == (71, 29)


def test_an_image_that_nobody_answers_for_ends_no_count_well(
    photos: Path, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, store = workers.count, Store(str(tmp_path / "store"))

    def forgetful(rows: pd.DataFrame, *how: Any) -> Iterator[dict[str, np.ndarray]]:
        yield from count(rows[rows["index"] != 7], *how)

    monkeypatch.setattr(workers, "count", forgetful)
    with pytest.raises(RuntimeError, match="photos: 1 images were neither counted nor rejected"):
        counted(photos, store)
    assert not [key for key in store.list() if key.endswith(("dataset.json", ".parquet"))]


def test_of_equal_files_the_first_is_kept_and_named(
    photos: Path, tmp_path: Path, done: Done
) -> None:
    for name in ("20.png", "21.png"):
        shutil.copy(photos / "03.png", photos / name)
    (photos / "22.png").write_bytes(b"")  # as bad as 05.png, and no duplicate of it
    store = Store(str(tmp_path / "store"))
    data, (table, _, _) = counted(photos, store, remove_duplicates=True)
    assert (data.images, data.duplicates, data.rejected) == (IMAGES - 1, 2, 2)
    assert not {"20.png", "21.png"} & {*table["image_id"]}
    duplicates = pd.read_csv(store.join(f"{data.key}/duplicates.csv")).to_numpy().tolist()
    assert duplicates == [["20.png", "03.png"], ["21.png", "03.png"]]
