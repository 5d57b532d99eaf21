"""The pack: the images of one data set as memory-mapped shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from featgan.digests import sha256_of_file

INDEX = "index.parquet"
DIGESTS = "digests.json"
PACK_FORMAT = 1
SHORTEST = 256
"""Images in a shard, but for the last."""
MOST_SHARDS = 512
"""Of a pack: each is a file that stays open, and a process often may have 1,024."""


def _write_shards(folder: Path, total: int, images: Iterable[np.ndarray]) -> None:
    """Pieces of any length as shards of one length, none of which is held in memory."""
    length, row = max(SHORTEST, -(-total // MOST_SHARDS)), 0
    for piece in images:
        while len(piece):
            some, piece = np.split(piece, [length - row % length])
            with (folder / f"{row // length:05d}.npy").open("ab") as file:
                if row % length == 0:
                    header = np.lib.format.header_data_from_array_1_0(some)
                    shape = min(length, total - row), *some.shape[1:]
                    np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
                file.write(np.ascontiguousarray(some).data)
            row += len(some)


class ImagePack:
    """The images of one data set, in the order of its feature table: memory-mapped uint8 shards.

    A folder of shards `00000.npy` … [n, 3, S, S], whose rows are numbered through,
    `index.parquet` with the `image_id` of each row, and `digests.json` with each file's SHA-256.
    """

    def __init__(self, folder: Path, shards: Sequence[np.ndarray]) -> None:
        self._folder, self._shards = folder, shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.size = int(shards[0].shape[-1])

    @classmethod
    def open(cls, folder: Path) -> ImagePack:
        """The pack in a local folder; no pixel is read before `rows` asks for it."""
        shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
        return cls(folder, shards)

    @classmethod
    def write(
        cls, folder: Path, image_ids: Sequence[str] | pd.Series, images: Iterable[np.ndarray]
    ) -> ImagePack:
        """Make a pack of all `images`: pieces uint8 [n, 3, S, S], which are taken one at a time."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_shards(folder, len(image_ids), images)
        table = pd.DataFrame({"image_id": image_ids})
        table.to_parquet(folder / INDEX, use_dictionary=False)  # no name comes twice
        digests = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
        about = {"format": PACK_FORMAT, "sha256": digests}
        (folder / DIGESTS).write_text(json.dumps(about, indent=1))
        return cls.open(folder)

    @staticmethod
    def check(folder: Path) -> None:
        """Read the whole pack; ValueError, in one line, where a file of it is not what it was."""
        about = json.loads((folder / DIGESTS).read_bytes())
        if about.get("format") != PACK_FORMAT:
            raise ValueError(f"format {about.get('format')}, and this version reads {PACK_FORMAT}")
        found = {*(path.name for path in folder.glob("*.npy")), INDEX}
        if odd := sorted(found ^ set(about["sha256"])):
            raise ValueError(f"{', '.join(odd)}: missing or foreign")
        for name, digest in about["sha256"].items():
            if sha256_of_file(folder / name) != digest:
                raise ValueError(f"{name} is cut or altered: the SHA-256 differs")

    @property
    def image_ids(self) -> pd.Series:
        """The `image_id` of each row, read anew: training needs none."""
        return pd.read_parquet(self._folder / INDEX)["image_id"]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """These rows, in this order: uint8 [len(rows), 3, S, S]."""
        rows = np.asarray(rows, dtype=np.int64)
        images = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            images[here] = self._shards[number][rows[here] - self._starts[number]]
        return images
