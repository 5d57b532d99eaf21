"""The pack: the images of one data set as memory-mapped shards."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

MOST_OPEN = 512
"""Shards that stay open: each takes a file descriptor, and a process often may have 1,024."""


def shard_bytes(images: np.ndarray) -> bytes:
    """Return the file of a shard, in numpy's format: uint8 [n, 3, S, S]."""
    file = io.BytesIO()
    np.save(file, images, allow_pickle=False)
    return file.getvalue()


class ImagePack:
    """The images of one data set, in the order of its feature table.

    The shards [n, 3, S, S], one after another, hold the images in another order, and perhaps some
    more, such as duplicates.
    """

    def __init__(
        self, shards: Sequence[Path], lengths: Sequence[int], stored: np.ndarray | None = None
    ) -> None:
        """Open shards of `lengths` images; pixels are not read before `rows` asks for them.

        `stored` [n] is the place of each image in the shards; None: they are in the same order.
        """
        self._starts = np.cumsum([0, *lengths])
        self._stored = np.arange(self._starts[-1]) if stored is None else stored
        self._open = lru_cache(MOST_OPEN)(lambda number: np.load(shards[number], mmap_mode="r"))
        self.size = int(self._open(0).shape[-1])

    def __len__(self) -> int:
        return len(self._stored)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows, in this order: uint8 [len(rows), 3, S, S]."""
        stored = self._stored[np.asarray(rows, np.int64)]
        images = np.empty((len(stored), 3, self.size, self.size), np.uint8)
        shard_of = np.searchsorted(self._starts, stored, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            images[here] = self._open(number)[stored[here] - self._starts[number]]
        return images
