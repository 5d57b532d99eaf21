"""The pack: the images of one data set as memory-mapped shards."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch


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

    def __init__(self, shards: Sequence[Path], lengths: Sequence[int], stored: np.ndarray) -> None:
        """Open shards of `lengths` images; pixels are not read before `rows` asks for them.

        `stored` [n] is the place of each image in the shards.
        """
        self._starts = np.cumsum([0, *lengths])
        self._stored = stored
        self._open = lru_cache(None)(lambda number: _mapped(shards[number]))
        self.size = int(self._open(0).shape[-1])

    def __len__(self) -> int:
        return len(self._stored)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows, in this order: uint8 [len(rows), 3, S, S]."""
        stored = self._stored[np.asarray(rows, np.int64)]
        images = np.empty((len(stored), 3, self.size, self.size), np.uint8)
        shards = np.searchsorted(self._starts, stored, side="right") - 1
        places = zip(shards.tolist(), (stored - self._starts[shards]).tolist(), strict=True)
        for image, (shard, row) in zip(images, places, strict=True):
            image[:] = self._open(shard)[row]
        return images


def _mapped(path: Path) -> np.ndarray:
    """Return the images of a shard, memory-mapped without a file descriptor, of which few are free.

    As a plain array: to take a row of numpy's own memory map takes ten times as long.
    """
    shard = np.load(path, mmap_mode="r")
    content = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8).numpy()
    return content[shard.offset :].reshape(shard.shape)
