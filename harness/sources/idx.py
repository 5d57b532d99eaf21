"""Images and labels in MNIST's IDX format, plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import Image

from featgan.errors import UserError
from featgan.regular_file import open_regular
from harness.sources.builtin import encoded
from harness.sources.folder import MOST_BYTES, Row

UNSIGNED_BYTE = 8
DIMENSIONS = (1, 3, 4)
"""Of labels, and of images without and with colours."""


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
    stamp = hashlib.sha256(pixels.data).hexdigest()[:16]  # two sets' may be alike in all else
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
    try:
        with open_regular(path) as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if packed else plain as file:
                dimensions, shape = _header(path, file)
                expected = math.prod(shape)
                data = file.read(expected + 1)  # one more: a packed file may hold any amount
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise UserError(f"data: {path} cannot be read: {error}") from error
    if len(shape) != dimensions or len(data) != expected:
        told = "more" if len(data) > expected else len(data)
        raise UserError(f"data: {path} is damaged: {told} bytes of pixels for {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _header(path: str, file: gzip.GzipFile | BinaryIO) -> tuple[int, tuple[int, ...]]:
    """How many dimensions there are to be, and those that are there.

    A file that claims what no set of images has is refused before its pixels are read: a few
    packed megabytes may hold any amount of zeros.
    """
    start = file.read(4)
    if len(start) < 4 or start[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise UserError(f"data: {path} is no IDX file of bytes")
    if start[3] not in DIMENSIONS:
        raise UserError(
            f"data: {path} holds an array of {start[3]} dimensions, neither of images nor of labels"
        )
    sizes = file.read(4 * start[3])
    shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
    if math.prod(shape) > MOST_BYTES:
        raise UserError(
            f"data: {path} is to hold {shape}, over {MOST_BYTES >> 20} MiB of pixels: make several "
            "files of it and name them in a union"
        )
    return start[3], shape
