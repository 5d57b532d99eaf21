"""Blocks: fixed slices of a listing, each counted and packed by one worker.

A finished block is a shard of the data set's pack and, written after it, a small record of its
images. An interrupted count resumes with the blocks that are not finished. All blocks together
become the feature table: image_id, label, sha256 of the pixels, feature_count and place in the
shards of each image kept, in an order that depends on the images alone.
"""

import hashlib
import mmap
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from harness.counting.cache import Makers, content_of, digest_order
from harness.records.data_set import Shard
from harness.sources.listing import SLICE
from harness.storage.sealed import Sealed
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

    key: str
    """The folder of the data set."""
    number: int
    digests: list[str]
    """SHA-256 of the pixels of each image; empty for rejected images."""
    counts: list[int]
    """NOT_COUNTED for rejected images."""
    problems: dict[int, str] = Field({})
    """The reason for rejecting an image, by its place in the block."""
    unreadable: list[int] = Field([])
    """Places of images that could not be read: the next count tries them again."""
    shard: Shard | None = None
    """The file of the good images, in the data set's `pack` folder."""
    makers: Makers = Field([])

    def put(self, store: Store) -> bytes:
        """Write the file that makes the block a finished one, and return its content."""
        content = self.to_json()
        store.put(f"{self.key}/blocks/{self.number:05d}.json", content)
        return content


class Blocks:
    """The results of a count so far, by the index of an image in the listing."""

    def __init__(self, store: Store, key: str, total: int, length: int) -> None:
        """Load the finished blocks of an earlier count, except those with unreadable images."""
        self.total, self.length = total, length
        self.counted = 0
        """Number of images, rejected ones too."""
        self.counts = np.full(total, -1, np.int32)
        self.sha256 = np.zeros(total, "S32")
        self.problems: dict[int, str] = {}
        """The reason for rejecting an image."""
        self.unreadable = 0
        self.makers: Makers = []
        self._shards: dict[int, Shard | None] = {}
        packed = set(store.list(f"{key}/pack"))
        for _, content in store.get_all(store.list(f"{key}/blocks")):
            try:
                block = Block.model_validate_json(content or b"")
            except ValidationError:  # damaged: its images are counted again
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
        self.sha256[rows] = np.array([*map(bytes.fromhex, block.digests)], "S32")
        self.problems |= {rows.start + place: why for place, why in block.problems.items()}
        self.unreadable += len(block.unreadable)
        self.makers += [maker for maker in block.makers if maker not in self.makers]
        self._shards[block.number] = block.shard


def in_order(labels: pd.Series, blocks: Blocks) -> np.ndarray:
    """Return the indices of the good images in the order of the feature table.

    It is that of digests and labels, so that the same images in other files have the same order.
    Of equal images, those with a label come first, else those first in the listing.
    """
    codes, names = pd.factorize(labels, sort=True)
    codes[codes < 0] = len(names)
    order = digest_order(blocks.sha256, codes)
    return order[blocks.counts[order] >= 0]


def find_duplicates(image_ids: pd.Series, kept: np.ndarray, sha256: np.ndarray) -> pd.DataFrame:
    """Return the images whose pixels an image before them has: `image_id`, `same_as`.

    `kept` are images in the order of their `sha256`; the index of the result are places in it.
    """
    digests = sha256[kept]
    first = np.append(True, digests[1:] != digests[:-1])
    places, firsts = np.flatnonzero(~first), np.flatnonzero(first)
    same = firsts[np.searchsorted(firsts, places) - 1]
    ids = (image_ids.iloc[kept[of]].to_numpy() for of in (places, same))
    return pd.DataFrame(dict(zip(("image_id", "same_as"), ids, strict=True)), places)


def feature_table(
    images: pd.DataFrame, blocks: Blocks, kept: np.ndarray, counts: type[np.integer[Any]]
) -> tuple[mmap.mmap, str]:
    """Return a Parquet file of the images `kept`, in this order, and the hash of their content.

    The hash is of digests and counts. `counts` is the type of a count. Built in slices: a whole
    table is the largest thing a count would hold.
    """
    columns = [name for name in images if name not in ("location", "stamp")]
    types = dict.fromkeys([*columns, "sha256"], pa.string())
    numbers = [("feature_count", pa.from_numpy_dtype(counts)), ("pack_row", pa.int64())]
    schema = pa.schema([*types.items(), *numbers])
    pack_rows = np.cumsum(blocks.counts >= 0) - 1
    content, repeated = hashlib.sha256(), [name for name in columns if name != "image_id"]
    options = {"use_dictionary": repeated, "compression": "zstd"}
    with TemporaryFile() as file:
        writer = pq.ParquetWriter(file, schema, **options)
        for start in range(0, len(kept), SLICE):
            rows = kept[start : start + SLICE]
            table = images[columns].iloc[rows].set_axis(range(start, start + len(rows)))
            digests = blocks.sha256[rows].tobytes()
            table["sha256"] = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
            table["feature_count"] = blocks.counts[rows].astype(counts)
            table["pack_row"] = pack_rows[rows]
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            hashed = table[["sha256", "feature_count"]]
            content.update(hashed.to_csv(header=start == 0).encode())
        writer.close()
        return content_of(file), content.hexdigest()
