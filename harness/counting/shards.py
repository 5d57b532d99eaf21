"""Blocks: fixed slices of a listing, each counted and packed by one worker.

A finished block is a shard of the data set's pack and, written after it, a small record of its
images. An interrupted count resumes with the blocks that are not finished. All blocks together
become the feature table: image_id, label, sha256 and feature_count of each image kept.
"""

import hashlib
import io
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from harness.counting.cache import Makers
from harness.records.data_set import Shard
from harness.sources.listing import SLICE
from harness.storage.sealed import Sealed, unseal
from harness.storage.store import Store

SMALLEST = 32
"""Images in a block: little to lose on a slow machine."""
MOST = 512
"""Blocks of a data set, unless they were larger than LARGEST."""
LARGEST = 64 * 2**20
"""Bytes of a block's pixels, at the larger of the sizes for training and counting."""


def block_length(total: int, side: int) -> int:
    """Return the number of images in a block of `total` images of `side` pixels."""
    return max(1, min(max(SMALLEST, -(-total // MOST)), LARGEST // (3 * side**2)))


class Block(Sealed):
    """The record of a finished block; its images are in the order of the listing."""

    format: Literal[1] = 1
    key: str
    """The folder of the data set."""
    number: int
    digests: list[str]
    """SHA-256 of the bytes of each image; empty where they could not be read."""
    counts: list[int]
    """NOT_COUNTED for rejected images."""
    problems: dict[int, str] = Field({})
    """The reason for rejecting an image, by its place in the block."""
    unreadable: list[int] = Field([])
    """Places of images that could not be read: the next count tries them again."""
    shard: Shard | None = None
    """The file of the good images, in the data set's `pack` folder."""
    makers: Makers = Field([])

    def put(self, store: Store) -> None:
        """Write the file that makes the block a finished one."""
        store.put(f"{self.key}/blocks/{self.number:05d}.json", self.to_json())


class Blocks:
    """The results of a count so far, by the index of an image in the listing."""

    def __init__(self, store: Store, key: str, total: int, length: int) -> None:
        """Load the finished blocks of an earlier count, except those with unreadable images."""
        self.total, self.length = total, length
        self.counted = 0
        """Number of images, rejected ones too."""
        self.counts = np.full(total, -1, np.int32)
        self.sha256 = np.zeros(total, "S64")
        self.problems: dict[int, str] = {}
        """The reason for rejecting an image."""
        self.unreadable = 0
        self.makers: Makers = []
        self._shards: dict[int, Shard | None] = {}
        packed = set(store.list(f"{key}/pack"))
        for _, content in store.get_all(store.list(f"{key}/blocks")):
            try:
                block = Block.model_validate(unseal(content or b""))
            except ValueError:  # damaged: its images are counted again
                continue
            there = block.shard is None or f"{key}/pack/{block.shard.file}" in packed
            fits = len(block.counts) == len(self.counts[self.rows(block.number)])
            if block.key == key and fits and there and not block.unreadable:
                self.add(block)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of the pack, in order."""
        return tuple(shard for _, shard in sorted(self._shards.items()) if shard)

    def rows(self, number: int) -> slice:
        """Return the indices of a block's images."""
        return slice(number * self.length, min((number + 1) * self.length, self.total))

    def missing(self) -> list[int]:
        """Return the numbers of the blocks that are still to be counted."""
        return [n for n in range(-(-self.total // self.length)) if n not in self._shards]

    def add(self, block: Block) -> None:
        """Take over a finished block."""
        rows = self.rows(block.number)
        self.counted += len(block.counts)
        self.counts[rows] = block.counts
        self.sha256[rows] = np.array(block.digests, "S64")
        self.problems |= {rows.start + place: why for place, why in block.problems.items()}
        self.unreadable += len(block.unreadable)
        self.makers += [maker for maker in block.makers if maker not in self.makers]
        self._shards[block.number] = block.shard


def find_duplicates(images: pd.DataFrame, sha256: np.ndarray, good: np.ndarray) -> pd.DataFrame:
    """Return the images whose bytes an image before them has: `image_id`, `same_as`.

    `sha256` S64 [n] and `good` bool [n] describe the images; the index is that of `images`.
    """
    # as Arrow text: numpy's takes four bytes a letter
    digests = pa.array(sha256[good]).cast(pa.string()).to_pandas()
    table = images.loc[good, ["image_id"]].assign(sha256=digests.to_numpy())
    again = table["sha256"].duplicated()
    repeated = table[again]
    firsts = table[~again & table["sha256"].isin(repeated["sha256"])].set_index("sha256")
    same_as = repeated["sha256"].map(firsts["image_id"])
    return repeated[["image_id"]].assign(same_as=same_as)


def feature_table(
    images: pd.DataFrame, blocks: Blocks, kept: np.ndarray, counts: type[np.integer[Any]]
) -> tuple[bytes, str]:
    """Return a Parquet file of the images at `kept`, and the hash of their digests and counts.

    `counts` is the type of a count. Built in slices: a whole table is the largest thing a count
    would hold.
    """
    columns = [name for name in images if name not in ("location", "stamp")]
    types = dict.fromkeys([*columns, "sha256"], pa.string())
    schema = pa.schema([*types.items(), ("feature_count", pa.from_numpy_dtype(counts))])
    file, content = io.BytesIO(), hashlib.sha256()
    repeated = [name for name in columns if name != "image_id"]
    with pq.ParquetWriter(file, schema, use_dictionary=repeated) as writer:
        for start in range(0, len(kept), SLICE):
            rows = kept[start : start + SLICE]
            table = images[columns].iloc[rows].set_axis(range(start, start + len(rows)))
            table["sha256"] = blocks.sha256[rows].astype(str)
            table["feature_count"] = blocks.counts[rows].astype(counts)
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            hashed = table[["sha256", "feature_count"]]
            content.update(hashed.to_csv(header=start == 0).encode())
    return file.getvalue(), content.hexdigest()
