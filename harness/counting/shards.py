"""Blocks: fixed slices of a listing, each counted and packed by one worker.

A finished block is a shard of the data set's pack and, written after it, a small record of its
images. An interrupted count resumes with the blocks that are not finished.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from harness.counting.cache import Makers
from harness.records.data_set import Shard
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
        self.counted = np.zeros(total, bool)
        """True for rejected images as well."""
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
            if block.key == key and there and not block.unreadable and self._fits(block):
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
        self.counted[rows], self.counts[rows] = True, block.counts
        self.sha256[rows] = np.array(block.digests, "S64")
        self.problems |= {rows.start + place: why for place, why in block.problems.items()}
        self.unreadable += len(block.unreadable)
        self.makers += [maker for maker in block.makers if maker not in self.makers]
        self._shards[block.number] = block.shard

    def _fits(self, block: Block) -> bool:
        """Return False for a block of another length: those of an earlier version."""
        rows = self.rows(block.number)
        return len(block.digests) == len(block.counts) == rows.stop - rows.start
