"""The built-in data sets: apples (drawn) and digits (scikit-learn's); no download, no files."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

from featgan.errors import UserError
from harness.sources import apples
from harness.sources.folder import Row

VERSION = "1"
"""To be raised whenever the same seed gives other pictures."""


def list_images(name: str, count: int | None, seed: int, size: int) -> list[Row]:
    """Rows of `apples`, drawn at `size`, or of `digits`; UserError for more than there are."""
    if name == "apples":
        places = (
            (i, f"{seed} {i} {size}".encode()) for i in range(600 if count is None else count)
        )
        stamp = f"{VERSION} {seed}"
        return [Row(f"{i:06d}", place, apples.variety(seed, i), stamp) for i, place in places]
    _, labels = _digits()
    count = len(labels) if count is None else count
    if count > len(labels):
        raise UserError(f"data: digits: count is {count}, but there are {len(labels)} digits")
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    digits = sorted(chosen.tolist())
    return [Row(f"{i:06d}", str(i).encode(), str(labels[i]), VERSION) for i in digits]


def read_apple(location: bytes) -> bytes:
    """Draw the apple of `seed index size`, as a PPM file."""
    seed, index, size = (int(part) for part in location.split())
    return encoded(apples.draw(seed, index, size))


def read_digit(location: bytes) -> bytes:
    """The digit of this index, as a PGM file."""
    return encoded(Image.fromarray(_digits()[0][int(location)]))


READERS = {"apples": read_apple, "digits": read_digit}


def encoded(image: Image.Image) -> bytes:
    """An image as a PPM or PGM file: its plain pixels, so nothing is lost and little time."""
    file = io.BytesIO()
    image.convert("L" if image.mode in ("1", "L") else "RGB").save(file, "PPM")
    return file.getvalue()


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1797, 8, 8] and labels [1797]."""
    from sklearn.datasets import load_digits  # takes a second, and only this set needs it

    digits = load_digits()
    return (digits.images * (255 / 16) + 0.5).astype(np.uint8), digits.target
