"""Image sources as a sweep file names them, and a look at what they list."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from featgan.images.decode import decode
from harness.sources.base import Source, SourceSettings

SETTINGS: TypeAdapter[Source] = TypeAdapter(SourceSettings)


def source(kind: str, **settings: Any) -> Source:
    return SETTINGS.validate_python({"source": kind, **settings})


def save(path: Path | bytes, colour: str = "red") -> None:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (16, 16), colour).save(file, "PNG")


def ids(found: Source, size: int = 32) -> list[str]:
    return found.listing(size).images["image_id"].tolist()


def pixel(found: Source, row: int) -> tuple[int, int, int]:
    """Middle pixel of an image, by way of location, reader and decoder."""
    image = decode(found.reader()(found.listing(32).images["location"].iloc[row]))
    return image.getpixel((image.width // 2, image.height // 2))


def write_idx(path: Path, array: np.ndarray) -> str:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)
