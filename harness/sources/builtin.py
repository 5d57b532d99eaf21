"""The built-in data sets, which need no files: apples (drawn) and digits (scikit-learn's)."""

import io
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from featgan.errors import UserError
from harness.sources import apples
from harness.sources.base import Found, Row, Source

VERSION = "2"
"""Raise it whenever the same seed gives other pictures."""


class BuiltinSource(Source):
    """A set that needs no download."""

    source: Literal["builtin"]
    set: Literal["apples", "digits"]
    """`apples` (drawn, diverse, labelled by variety) or `digits` (scikit-learn's 1,797 handwritten
    digits, 8x8, narrow)."""
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many: of apples up to a million (default 600), of digits 1,797 (default all)."""
    seed: int = Field(default=0, ge=0)
    """Draws other apples; chooses other digits where `count` is not all."""

    def find(self, image_size: int) -> Found:
        """Find the images; apples are drawn twice as large as the sweep trains at."""
        if self.set == "apples":
            return Found(_apples(self.count or 600, self.seed, image_size))
        return Found(_digits(self.count, self.seed))

    def read(self, location: bytes) -> bytes:
        """Draw the apple at `seed index size`, or look up the digit at an index: a PPM or PGM."""
        if self.set == "apples":
            return encoded(apples.draw(*map(int, location.split())))
        return encoded(Image.fromarray(_digit_images()[0][int(location)]))


def _apples(count: int, seed: int, image_size: int) -> Iterator[Row]:
    for i in range(count):
        place = f"{seed} {i:06d} {2 * image_size}".encode()
        yield Row(f"{i:06d}", place, apples.variety(seed, i), f"{VERSION} {seed}")


def _digits(count: int | None, seed: int) -> list[Row]:
    _, labels = _digit_images()
    count = count or len(labels)
    if count > len(labels):
        raise UserError(f"data: digits: count is {count}, but there are {len(labels)} digits")
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    return [Row(f"{i:06d}", f"{i:06d}".encode(), str(labels[i]), VERSION) for i in sorted(chosen)]


def encoded(image: Image.Image) -> bytes:
    """Encode an image as PPM or PGM: plain pixels, lossless and fast."""
    file = io.BytesIO()
    image.convert("L" if image.mode in ("1", "L") else "RGB").save(file, "PPM")
    return file.getvalue()


@cache
def _digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the images uint8 [1797, 8, 8] and labels [1797]."""
    # the file of `sklearn.datasets.load_digits`: to import that takes a second
    (folder,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
    rows = np.loadtxt(f"{folder}/datasets/data/digits.csv.gz", delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    return (images * (255 / 16) + 0.5).astype(np.uint8), labels.astype(int)
