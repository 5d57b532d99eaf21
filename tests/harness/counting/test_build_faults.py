"""Counts whose storage fails, whose images cannot be read, or that end early."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from faults import check_every_write
from inline import Here
from PIL import Image

from featgan.errors import UserError
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.images.decode import decode, pixel_digest
from harness.counting import build, workers
from harness.counting.build import DataSetBuilder
from harness.counting.cache import EarlierCounts
from harness.counting.shards import Block
from harness.preparation.image_values import ImageValues
from harness.records.data_set import (
    DataSet,
    check,
    load_rejected,
    load_table,
    load_values,
    open_pack,
)
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


def nothing(*_: Any) -> None:
    pass


def counted(
    photos: Path,
    store: Store,
    max_rejected: float = 0.5,
    progress: Callable[[str, int, int | None], None] = nothing,
    **more: Any,
) -> tuple[DataSet, list[Any]]:
    data = DataSetBuilder(
        "photos",
        FolderSource(source="folder", path=str(photos), **more),
        FEATURES,
        16,
        store,
        actors=None,
        gpu=False,
        max_rejected=max_rejected,
        progress=progress,
    ).build()
    check(store, data)
    pack = open_pack(store, data.key)
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
    photos: Path, tmp_path: Path, here: Here, code: int
) -> None:
    root = str(tmp_path / "store")

    def reset() -> None:
        shutil.rmtree(Path(root) / "features", ignore_errors=True)
        here.forget()

    def work(store: Store) -> tuple[DataSet, list[Any]]:
        found = counted(photos, store)
        assert len(here.read) <= IMAGES + 2, "of a block under way at most is anything read twice"
        return found

    (data, _), writes = check_every_write(work, root, code, reset)
    assert (data.images, data.rejected, len(data.shards)) == (IMAGES - 1, 1, 6)
    # a shard and a record for each block; counts, three tables, the end; the lock
    assert writes >= 6 * 2 + 5 + 1


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
def test_an_unreadable_image_costs_no_other_a_second_count(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    store = Store(str(tmp_path / "store"))
    here.closed = {"03.png"}
    first, content = counted(photos, store)
    assert (first.images, first.rejected, first.unreadable) == (IMAGES - 2, 2, 1)
    here.forget()
    assert counted(photos, store) == (first, content)
    assert (here.read, here.seen) == (["02.png"], 0)  # the block is read again, and not counted

    before = ImageValues(first, AT_RANDOM, FEATURES, store, False, nothing).make()
    here.closed.clear()
    fixed, _ = counted(photos, store)
    assert (fixed.key, fixed.images, fixed.unreadable) == (first.key, IMAGES - 1, 0)
    assert here.seen == 1
    assert {key.rpartition("/")[2] for key in store.list(f"{fixed.key}/pack")} == {
        shard.file for shard in fixed.shards
    }
    after = ImageValues(fixed, AT_RANDOM, FEATURES, store, False, nothing).make()
    lengths = [len(load_values(store, first.key, key)) for key in (before, after)]
    assert lengths == [IMAGES - 2, IMAGES - 1]
    here.forget()
    assert counted(photos, store)[0] == fixed
    assert here.read == []


def test_a_known_count_makes_no_image_of_refused_bytes(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [path for path in sorted(photos.iterdir()) if path.name != "05.png"]
    digests = [pixel_digest(decode(path.read_bytes())) for path in good] + [b""]
    known = EarlierCounts().merged(np.array(digests, "S32"), np.arange(IMAGES), [])
    monkeypatch.setattr(build, "load_counts", lambda *_: known)
    data, (_, rejected, _) = counted(photos, Store(str(tmp_path / "store")))
    assert (data.images, data.rejected, here.seen) == (IMAGES - 1, 1, 0)
    assert rejected["image_id"] == ["05.png"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no answer\nat all")])
def test_any_error_of_a_reader_makes_an_image_unreadable(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, error: Exception
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
    "A data set stays until its successor is written; two sweeps never count it at once",
)
def test_a_recount_that_ends_early_loses_nothing(photos: Path, tmp_path: Path, here: Here) -> None:
    before, root = tmp_path / "before", str(tmp_path / "store")
    here.closed = {"03.png"}
    first, content = counted(photos, Store(str(before)))
    here.closed = set()
    here.forget()

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root)

    work = partial(counted, photos)
    (fixed, _), writes = check_every_write(work, root, errno.ENOSPC, reset)
    assert fixed.images == first.images + 1
    assert here.seen <= 2 * writes  # no other image was counted again

    reset()
    here.closed = {f"{number:02d}.png" for number in range(2, 4)}  # worse than before
    with pytest.raises(UserError, match=r"3 of 12 .*/rejected-so-far\.csv"):
        counted(photos, Store(root), max_rejected=0.2)
    check(Store(root), first)  # the old data set is still there
    here.closed = {"03.png"}
    assert counted(photos, Store(root)) == (first, content)


@pytest.mark.guarantee(
    "Images",
    "A data set stays until its successor is written; two sweeps never count it at once",
)
def test_a_data_set_that_another_sweep_counts_is_waited_for(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SweepLock", partial(SweepLock, beat=0.05, patience=2.0))
    store, said = Store(str(tmp_path / "store")), list[str]()
    data, content = counted(photos, store)
    record = store.get(f"{data.key}/dataset.json")
    store.delete(f"{data.key}/dataset.json")
    store.delete(f"{data.key}/blocks/00000.json")
    here.forget()
    first = SweepLock(store, data.key, notice=nothing, beat=0.1).__enter__()

    def finish() -> None:
        store.put(f"{data.key}/dataset.json", record)
        first.__exit__(None, None, None)

    def say(text: str, *_: object) -> None:
        said.append(text)
        if len(said) == 1:  # longer than the patience with a driver without a heartbeat
            threading.Timer(3.0, finish).start()

    assert counted(photos, store, progress=say) == (data, content)
    assert here.read == []
    assert "waiting up to 2 s for its heartbeat, and for its end" in said[0]


def test_29_of_100_images_may_be_bad_and_not_one_more(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    """29 of a hundred, which floats take for 28.999999999999996."""
    good = (photos / "00.png").read_bytes()
    for number in range(100):
        (photos / f"{number:02d}.png").write_bytes(good if number >= 29 else b"")
    data, _ = counted(photos, Store(str(tmp_path / "store")), max_rejected=0.29)
    assert (data.images, data.rejected) == (71, 29)


def test_a_block_that_never_comes_ends_no_count_well(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, store = workers.count, Store(str(tmp_path / "store"))

    def forgetful(*how: Any) -> Iterator[Block]:
        yield from (block for block in count(*how) if block.number != 3)

    monkeypatch.setattr(workers, "count", forgetful)
    with pytest.raises(RuntimeError, match="photos: 1 blocks were not counted"):
        counted(photos, store)
    assert not store.list("features/photos") or not [
        key for key in store.list("features") if key.endswith("dataset.json")
    ]


def test_of_equal_files_the_first_is_kept_and_named(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    for name in ("20.png", "21.png"):
        shutil.copy(photos / "03.png", photos / name)
    (photos / "22.png").write_bytes(b"")  # as bad as 05.png, and no duplicate of it
    Image.new("RGB", (20, 20), "lime").save(photos / "23.png")
    store = Store(str(tmp_path / "store"))
    data, (table, _, images) = counted(photos, store, remove_duplicates=True)
    assert (data.images, data.duplicates, data.rejected) == (IMAGES, 2, 2)
    assert not {"20.png", "21.png"} & {*table["image_id"]}
    lime = table["image_id"].index("23.png")
    assert np.array(images[lime])[1].min() == 255
    assert table["sha256"] == sorted(table["sha256"])
    duplicates = pd.read_csv(store.join(f"{data.key}/duplicates.csv")).to_numpy().tolist()
    assert duplicates == [["20.png", "03.png"], ["21.png", "03.png"]]


def test_a_damaged_block_is_counted_again(photos: Path, tmp_path: Path, here: Here) -> None:
    store = Store(str(tmp_path / "store"))
    expected = counted(photos, store)
    key = expected[0].key
    for number, damage in enumerate((b"", b"{}", store.get(f"{key}/blocks/00003.json"))):
        store.put(f"{key}/blocks/{number:05d}.json", damage)
    store.delete(f"{key}/dataset.json")
    here.forget()
    assert counted(photos, store) == expected
    assert (len(here.read), here.seen) == (6, 0)
