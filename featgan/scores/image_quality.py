"""Measures of outlines, colour, variety and copies in real and in generated images.

Pure functions of uint8 images [n, 3, S, S]. The paper's authors assessed outlines and colour by
eye.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Numbers = NDArray[np.float64]

COMPARED_SIZE = 32
"""Side, in pixels, to which images are averaged down for distances: detail is not variety."""
NEAR = 10.0
"""Distance of near-duplicates, in grey levels."""


@dataclass(frozen=True)
class Qualities:
    """Means over a set of images; distances are RMS over pixels, in grey levels 0..255."""

    images: int
    sharpness: float
    saturation: float
    colourfulness: float
    diversity: float
    near_duplicates: float
    """Share of the images that have a near-duplicate in the set."""
    nearest_training: float
    """Mean distance to the nearest training image; small: copied."""


def measure(images: Images, training: Images, *, same: bool = False) -> Qualities:
    """Return all qualities of `images`.

    With `same`, `images` are the first of `training`, and none is its own nearest training image.
    """
    return Qualities(
        images=len(images),
        sharpness=float(sharpness(images).mean()),
        saturation=float(saturation(images).mean()),
        colourfulness=float(colourfulness(images).mean()),
        diversity=diversity(images),
        near_duplicates=near_duplicates(images),
        nearest_training=float(nearest(images, training, same=same).mean()),
    )


def sharpness(images: Images) -> Numbers:
    """Return the sharpness of outlines [n]: RMS gradient of the luminance, in grey levels a pixel.

    The gradient is that of forward differences in both directions.
    """
    grey = np.tensordot(images, [0.299, 0.587, 0.114], axes=([1], [0]))  # [n, S, S]
    across, down = np.diff(grey, axis=2)[:, :-1], np.diff(grey, axis=1)[:, :, :-1]
    return np.sqrt((across**2 + down**2).mean(axis=(1, 2)))


def saturation(images: Images) -> Numbers:
    """Return the saturation [n] as in HSV: mean of (max - min) / max over pixels, 0 for black."""
    highest = images.max(axis=1).astype(np.float64)
    spread = highest - images.min(axis=1)
    return (spread / np.maximum(highest, 1)).mean(axis=(1, 2))


def colourfulness(images: Images) -> Numbers:
    """Return the colourfulness [n] (Hasler and Süsstrunk 2003): 0 for grey, 80 for vivid photos."""
    red, green, blue = images.astype(np.float64).transpose(1, 0, 2, 3)
    opponents = np.stack([red - green, (red + green) / 2 - blue])  # [2, n, S, S]
    spread = np.sqrt((opponents.std(axis=(2, 3)) ** 2).sum(axis=0))
    offset = np.sqrt((opponents.mean(axis=(2, 3)) ** 2).sum(axis=0))
    return spread + 0.3 * offset


def diversity(images: Images) -> float:
    """Return the mean distance over all pairs of images; NaN for fewer than two."""
    if len(images) < 2:
        return float("nan")
    distance = distances(images, images)
    return float(distance.sum() / (len(images) * (len(images) - 1)))


def near_duplicates(images: Images) -> float:
    """Return the share of the images that have a near-duplicate in the set."""
    return float((nearest(images, images, same=True) < NEAR).mean())


def nearest(images: Images, others: Images, *, same: bool = False) -> Numbers:
    """Return the distance [n] of each image to the nearest of `others`; infinite without any.

    With `same`, row i of `images` is row i of `others`, and is not compared with itself.
    """
    best = np.full(len(images), np.inf)
    for start in range(0, len(others), 1000):
        block = distances(images, others[start : start + 1000])
        if same:
            rows = np.arange(start, min(start + 1000, len(others), len(images)))
            block[rows, rows - start] = np.inf
        best = np.minimum(best, block.min(axis=1, initial=np.inf))
    return best


def distances(images: Images, others: Images) -> Numbers:
    """Return the distances [n, m]: RMS over pixels and channels of images of at most 32×32."""
    a, b = _compared(images), _compared(others)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    found = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    return np.where(found < 1e-4, 0.0, found)  # equal images, up to rounding


def _compared(images: Images) -> Numbers:
    """Return images as rows [n, 3 · s · s], averaged down to s = 32 if that divides S."""
    count, channels, size, _ = images.shape
    block = max(size // COMPARED_SIZE, 1)
    side = size // block
    cut = images[:, :, : side * block, : side * block].astype(np.float64)
    blocks = cut.reshape(count, channels, side, block, side, block)
    return blocks.mean(axis=(3, 5)).reshape(count, -1)
