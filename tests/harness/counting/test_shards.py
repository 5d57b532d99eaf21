"""Blocks of a listing, and what an interrupted count left of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.counting.cache import NOT_COUNTED
from harness.counting.shards import (
    Block,
    Blocks,
    block_length,
    feature_table,
    find_duplicates,
    in_order,
)
from harness.records.data_set import Shard
from harness.storage.store import Store

KEY = "features/x"


def put(store: Store, number: int, images: int = 3, **more: object) -> Block:
    """Write a block whose image at place i has the count 10 i, and its shard."""
    shard = Shard(f"{number:05d}-0.npy", images, "")
    fields = {
        "key": KEY,
        "number": number,
        "digests": [f"{i:064x}" for i in range(images)],
        "counts": [10 * i for i in range(images)],
        "shard": shard,
    }
    block = Block.model_validate(fields | more)
    store.put(f"{KEY}/pack/{shard.file}", b"pixels")
    block.put(store)
    return block


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_finished_blocks_remain(store: Store) -> None:
    put(store, 1, counts=[0, NOT_COUNTED, 20], problems={1: 'torn, "so"\n'}, makers=[{"a": "b"}])
    put(store, 2, images=2)
    blocks = Blocks(store, KEY, 8, 3)

    assert blocks.missing() == [0]
    assert blocks.problems == {4: 'torn, "so"\n'}
    assert blocks.counts.tolist() == [-1, -1, -1, 0, -1, 20, 0, 10]
    assert blocks.sha256[5] == bytes.fromhex(f"{2:064x}")
    assert [shard.file for shard in blocks.shards] == ["00001-0.npy", "00002-0.npy"]
    assert blocks.makers == [{"a": "b"}]
    blocks.add(put(store, 0))
    assert blocks.missing() == []
    assert blocks.counted == 8


def test_a_block_with_unreadable_images_is_not_finished(store: Store) -> None:
    block = put(store, 0, problems={1: "no permission"}, unreadable=[1])
    blocks = Blocks(store, KEY, 3, 3)
    assert blocks.missing() == [0]
    blocks.add(block)  # by this count it is
    assert (blocks.missing(), blocks.unreadable) == ([], 1)


def test_a_block_without_good_images_has_no_shard(store: Store) -> None:
    put(store, 0, shard=None, counts=[-1] * 3, problems=dict.fromkeys(range(3), "empty file"))
    blocks = Blocks(store, KEY, 3, 3)
    assert (blocks.missing(), blocks.shards) == ([], ())


def test_damaged_and_foreign_blocks_are_counted_again(store: Store) -> None:
    for number in range(5):
        put(store, number)
    whole = store.get(f"{KEY}/blocks/00000.json")
    store.put(f"{KEY}/blocks/00000.json", whole.replace(b"10", b"11", 1))
    store.put(f"{KEY}/blocks/00001.json", b"")
    store.delete(f"{KEY}/pack/00002-0.npy")
    other = put(store, 3).model_copy(update={"key": "features/y"})
    store.put(f"{KEY}/blocks/00003.json", other.to_json())
    put(store, 4, images=2)  # of another length
    assert Blocks(store, KEY, 15, 3).missing() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("total", "side", "length"),
    [(20, 16, 32), (100_000, 16, 196), (1_000_000, 16, 1954), (1_000_000, 224, 445)],
)
def test_blocks_are_few_but_small(total: int, side: int, length: int) -> None:
    assert block_length(total, side) == length
    assert length * 3 * side**2 <= 64 * 2**20


def test_the_order_is_that_of_digests_and_labels(store: Store) -> None:
    digests = [f"{n:064x}" for n in (7, 3, 7, 0, 3, 7)]
    put(store, 0, 6, digests=digests, counts=[1, 2, 1, NOT_COUNTED, 2, 1])
    blocks = Blocks(store, KEY, 6, 6)
    rows = in_order(pd.Series([None, "b", "b", "c", "a", "b"]), blocks)
    assert rows.tolist() == [4, 1, 2, 5, 0]

    found = find_duplicates(pd.Series([*"ABCDEF"]), rows, blocks.sha256)
    assert found.to_dict("split") == {
        "index": [1, 3, 4],
        "columns": ["image_id", "same_as"],
        "data": [["B", "E"], ["F", "C"], ["A", "C"]],
    }


def test_the_table_has_the_place_of_each_image_in_the_pack(store: Store) -> None:
    put(store, 0, counts=[5, NOT_COUNTED, 7], digests=["ff" * 32, "", "00" * 31 + "0a"])
    blocks = Blocks(store, KEY, 3, 3)
    images = pd.DataFrame({"image_id": [*"abc"], "location": b"", "label": None, "stamp": ""})
    file, _ = feature_table(images, blocks, np.array([2, 0]), np.int16)
    table = pd.read_parquet(io.BytesIO(file))
    assert table["image_id"].tolist() == ["c", "a"]
    assert table["sha256"].tolist() == ["00" * 31 + "0a", "ff" * 32]
    assert table["feature_count"].tolist() == [7, 5]
    assert table["pack_row"].tolist() == [1, 0]
