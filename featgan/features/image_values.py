"""A value for each image, by which the images can be ordered and grouped.

Each function here takes uint8 images [n, 3, S, S], RGB, and gives float64 [n]; an image's value
depends on nothing but its own pixels. Values that are no functions of pixels alone, such as the
feature count or a column of a table, are only named here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

ImageScore = Callable[[np.ndarray], np.ndarray]

VERSION = 1
"""Part of the name of stored values: to be raised when a function below gives other values."""
JPEG_QUALITY = 75
EDGE = 16
"""Grey levels between neighbours that make an edge."""


def jpeg_size(images: np.ndarray) -> np.ndarray:
    """Bytes of each image saved as a JPEG of quality 75, however its own file was saved."""
    return np.array([_jpeg_bytes(image) for image in images], np.float64)


def entropy(images: np.ndarray) -> np.ndarray:
    """Entropy of each image's 256 grey levels in bits (Shannon 1948): 0 for one level, up to 8."""
    shares = np.stack([np.bincount(image.ravel(), minlength=256) for image in grey(images)])
    shares = shares / shares.sum(axis=1, keepdims=True)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.abs((shares * logarithms).sum(axis=1))


def edge_density(images: np.ndarray) -> np.ndarray:
    """Share of each image's pixels that differ by over 16 grey levels from the right or lower one.

    The difference is the length of the gradient, by forward differences.
    """
    levels = grey(images).astype(np.int32)
    across, down = np.diff(levels, axis=2)[:, :-1], np.diff(levels, axis=1)[:, :, :-1]
    return (across**2 + down**2 > EDGE**2).mean(axis=(1, 2))


def grey(images: np.ndarray) -> np.ndarray:
    """Luminance in whole grey levels: uint8 [n, 3, S, S] -> uint8 [n, S, S].

    ITU-R 601's weights in integers, as Pillow converts, so equal on every machine.
    """
    red, green, blue = images.astype(np.uint32).transpose(1, 0, 2, 3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def _jpeg_bytes(image: np.ndarray) -> int:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
        file, "jpeg", quality=JPEG_QUALITY
    )
    return file.tell()


PIXEL_VALUES: Mapping[str, ImageScore] = {
    "jpeg_size": jpeg_size,
    "entropy": entropy,
    "edge_density": edge_density,
}
