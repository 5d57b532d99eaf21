"""Images and labels in MNIST's IDX format, plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image

from featgan.errors import UserError
from harness.builtin import encoded
from harness.folders import Row

UNSIGNED_BYTE = 8


def list_images(images: str, labels: str | None) -> list[Row]:
    """A row for each image; its location is `file:index`. UserError for what is not IDX."""
    path = os.path.abspath(os.path.expanduser(images))
    pixels = _load(path)
    if not pixels.size or not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)):
        raise UserError(
            f"data: {images} holds an array of shape {pixels.shape}, not of images: "
            "(number, height, width), or with a fourth of 3 for colours"
        )
    names = [None] * len(pixels) if labels is None else _names(labels)
    if len(names) != len(pixels):
        raise UserError(
            f"data: {images} has {len(pixels)} images, but {labels} {len(names)} labels"
        )
    stamp = hashlib.sha256(pixels.tobytes()).hexdigest()[
        :16
    ]  # two sets' files may be alike in all else
    file = os.fsencode(path)
    return [Row(f"{i:07d}", b"%s:%d" % (file, i), name, stamp) for i, name in enumerate(names)]


def read(location: bytes) -> bytes:
    """The image at `file:index`, as a PGM or PPM file."""
    path, _, index = location.rpartition(b":")
    return encoded(Image.fromarray(_load(os.fsdecode(path))[int(index)]))


def _names(path: str) -> list[str | None]:
    labels = _load(path)
    if labels.ndim != 1:
        raise UserError(f"data: {path} holds an array of shape {labels.shape}, not of labels")
    return [str(label) for label in labels]


@lru_cache(maxsize=4)
def _load(path: str) -> np.ndarray:
    """The array of a file: uint8 [n, …]."""
    path = os.path.expanduser(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != bytes((0, 0, UNSIGNED_BYTE)):
                raise UserError(f"data: {path} is no IDX file of bytes")
            sizes = file.read(4 * start[3])
            shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
            expected = math.prod(shape)
            data = file.read(expected + 1)  # one more: a packed file may hold any amount
    except (OSError, EOFError, OverflowError, MemoryError, zlib.error) as error:
        raise UserError(f"data: {path} cannot be read: {error}") from error
    if len(shape) != start[3] or len(data) != expected:
        told = "more" if len(data) > expected else len(data)
        raise UserError(f"data: {path} is damaged: {told} bytes of pixels for {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)
