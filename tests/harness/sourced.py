"""Image sources as a sweep file names them, and what they list."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from featgan.images.decode import decode
from harness.sources import SourceSettings
from harness.sources.base import Source
from harness.sources.listing import Listing

SETTINGS: TypeAdapter[Source] = TypeAdapter(SourceSettings)


def source(kind: str, **settings: Any) -> Source:
    return SETTINGS.validate_python({"source": kind, **settings})


def save(path: Path | bytes, colour: str = "red") -> None:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (16, 16), colour).save(file, "PNG")


def ids(found: Source, size: int = 32) -> list[str]:
    return Listing.of(found.find(size)).images["image_id"].tolist()


def pixel(found: Source, row: int) -> tuple[int, int, int]:
    """Return the middle pixel of an image, read by its location and decoded."""
    image = decode(found.read(Listing.of(found.find(32)).images["location"].iloc[row]))
    return image.getpixel((image.width // 2, image.height // 2))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array in MNIST's format."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())
