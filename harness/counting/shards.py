"""A count under way: results arrive in any order and are kept in parts of consecutive images.

A part is one file, written when its last image has come. Of an interrupted count the
finished parts remain, and with them the counts, digests, problems and pixels of their images.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pandas as pd

from harness.storage.store import Store

FORMAT = 1
SMALLEST = 256
"""Images in a part: little to lose on a slow machine."""
DAMAGED = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError)
"""What reading a part raises that is cut or altered: a zip file has a checksum of each array."""
MOST = 512
"""Parts of a data set, unless they were larger than LARGEST."""
LARGEST = 64 * 2**20
"""Bytes of pixels in a part: each counting actor fills one of its own, in the driver's memory."""


COLUMNS = ("index", "sha256", "problem", "unreadable", "count", "image")


class Parts:
    """What is known of each of `total` images, by its index in the listing."""

    def __init__(self, store: Store, key: str, total: int, image_size: int) -> None:
        """Take up the parts that an earlier count has left in `<key>/parts`."""
        self._store, self._key, self._folder = store, key, _folder(key)
        self._length = _length(total, image_size)
        self._open: dict[int, np.ndarray] = {}
        self.total, self.image_size = total, image_size
        self.counted = np.zeros(total, bool)
        """Of bad images too: what is known about them is all there is to know."""
        self.counts = np.full(total, -1, np.int32)
        self.sha256 = np.zeros(total, "S64")
        self.problems: dict[int, str] = {}
        """Why an image has no count."""
        self.unreadable: set[int] = set()
        """Those of the problems that are looked at again by the next count."""
        self._to_mend: set[int] = set()
        for file in _files(store, key):
            try:
                self._take_up(_number(file))
            except DAMAGED:  # its images are counted again
                store.delete(file)

    @classmethod
    def left_in(cls, store: Store, key: str) -> Iterator[pd.DataFrame]:
        """What finished parts hold: `sha256`, `feature_count` of each counted image."""
        for file in _files(store, key):
            # another sweep may just have finished its count, and removed them
            with (
                suppress(FileNotFoundError, *DAMAGED),
                np.load(io.BytesIO(store.get(file))) as arrays,
            ):
                if str(arrays["name"]) == _name(key, _number(file)):
                    counted = arrays["counts"] >= 0
                    columns = {
                        "sha256": arrays["sha256"][counted].astype(str),
                        "feature_count": arrays["counts"][counted],
                    }
                    yield pd.DataFrame(columns)

    def missing(self) -> np.ndarray:
        """Indices of the images that are still to be counted."""
        return np.flatnonzero(~self.counted)

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Keep results: COLUMNS of a batch; each image comes once."""
        columns = (batch[name] for name in COLUMNS)
        for index, sha256, problem, unreadable, count, image in zip(*columns, strict=True):
            if self.counted[index]:
                raise RuntimeError(f"image {index} was counted twice")
            self.counted[index], self.counts[index], self.sha256[index] = True, count, sha256
            if problem:
                self.problems[int(index)] = problem
            if unreadable:
                self.unreadable.add(int(index))
            self._add_image(int(index), image)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The indices and the images of each part; all must be finished."""
        for number in range(-(-self.total // self._length)):
            with self._read(number) as arrays:
                yield self._rows(number), arrays["images"]

    @staticmethod
    def rejected(key: str) -> str:
        """Where a count that was ended lists the images it had rejected until then."""
        return f"{_folder(key)}/rejected.csv"

    @staticmethod
    def are_left(store: Store, key: str) -> bool:
        """Whether a count has left anything."""
        return bool(store.list(_folder(key)))

    @staticmethod
    def delete(store: Store, key: str) -> None:
        """Remove the parts: the images are packed now."""
        store.delete(_folder(key))

    def _rows(self, number: int) -> slice:
        """The indices of a part's images."""
        return slice(number * self._length, min((number + 1) * self._length, self.total))

    def _add_image(self, index: int, image: np.ndarray) -> None:
        number, offset = divmod(index, self._length)
        rows = self._rows(number)
        if number in self._to_mend:
            with self._read(number) as arrays:
                self._open[number] = arrays["images"]
            self._to_mend.remove(number)
        elif number not in self._open:
            length = rows.stop - rows.start
            self._open[number] = np.empty((length, *image.shape), np.uint8)
        self._open[number][offset] = image
        if self.counted[rows].all():
            self._finish(number, self._open.pop(number))

    def _finish(self, number: int, images: np.ndarray) -> None:
        rows = self._rows(number)
        bad = [index for index in range(rows.start, rows.stop) if index in self.problems]
        file = io.BytesIO()
        np.savez(
            file,
            name=np.array(_name(self._key, number)),
            images=images,
            counts=self.counts[rows],
            sha256=self.sha256[rows],
            bad=np.array(bad, np.int64),
            problems=np.array([self.problems[index] for index in bad], str),
            unreadable=np.array([index in self.unreadable for index in bad], bool),
        )
        self._store.put(f"{self._folder}/{number:05d}.npz", file.getvalue())

    def _take_up(self, number: int) -> None:
        """Take over a part that is whole, but for what was unreadable; one of DAMAGED otherwise."""
        rows = self._rows(number)
        names = ("images", "counts", "sha256", "bad", "problems", "unreadable")
        with self._read(number) as arrays:  # the images too: reading them checks them
            if str(arrays["name"]) != _name(self._key, number):
                raise ValueError("another part, or of another count")
            images, counts, sha256, bad, problems, unreadable = (arrays[name] for name in names)
        if not len(images) == len(counts) == len(sha256) == rows.stop - rows.start:
            raise ValueError("a part of another count")
        self.counts[rows], self.sha256[rows], self.counted[rows] = counts, sha256, True
        self.counted[bad[unreadable]] = False
        if unreadable.any():
            self._to_mend.add(number)
        kept = zip(bad[~unreadable].tolist(), problems[~unreadable].tolist(), strict=True)
        self.problems.update(kept)

    def _read(self, number: int) -> np.lib.npyio.NpzFile:
        """A part's arrays, each read when it is asked for."""
        file = self._store.get(f"{self._folder}/{number:05d}.npz")
        return np.load(io.BytesIO(file), allow_pickle=False)


def _length(total: int, image_size: int) -> int:
    """Images in a part; the same for every count of a data set, or its parts were lost."""
    return min(max(SMALLEST, -(-total // MOST)), LARGEST // (3 * image_size**2))


def _folder(key: str) -> str:
    """Where the parts of a data set lie, in its own folder."""
    return f"{key}/parts"


def _files(store: Store, key: str) -> list[str]:
    """The parts of a data set, without the list that an ended count leaves beside them."""
    return [file for file in store.list(_folder(key)) if file.endswith(".npz")]


def _name(key: str, number: int) -> str:
    """What a part says that it is: one in another's place is no part."""
    return f"featgan part {FORMAT} {key} {number}"


def _number(file: str) -> int:
    return int(file.rpartition("/")[2].removesuffix(".npz"))
