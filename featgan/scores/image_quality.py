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
EDGE = 4
"""Pixels over which `outlines` compares the change to the next pixel."""
GREY = 2.0
"""Mean `colour` under which images count as grey, and their colours are not compared."""


@dataclass(frozen=True)
class Qualities:
    """Means over a set of images; distances are RMS over pixels, in grey levels 0..255."""

    images: int
    outlines: float
    colour: float
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
        outlines=float(outlines(images).mean()),
        colour=float(colour(images).mean()),
        colourfulness=float(colourfulness(images).mean()),
        diversity=diversity(images),
        near_duplicates=float((nearest(images, images, same=True) < NEAR).mean()),
        nearest_training=float(nearest(images, training, same=same).mean()),
    )


def outlines(images: Images) -> Numbers:
    """Return the sharpness of outlines [n]: 1/4 for ramps of 4 or more pixels, 4/7 for steps.

    The mean squared change of the luminance to the next pixel, divided by that over 4 pixels and
    multiplied by 4 (fine texture exceeds 1). So brightness and contrast cancel. A change is not
    squared, but multiplied by that of the next pixel along the edge: their noise is independent,
    and averages out. Diagonal changes have half the weight, as they are √2 pixels long.
    """
    grey = np.tensordot(images, [0.299, 0.587, 0.114], axes=([1], [0]))  # [n, S, S]
    margin, size = EDGE + 1, grey.shape[-1]

    def at(down: int, right: int) -> Numbers:
        return grey[:, margin + down : size - margin + down, margin + right : size - margin + right]

    near, far, contrast = np.zeros((3, len(images)))
    for down, right, weight in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.5), (1, -1, 0.5)):
        for reach, total in ((1, near), (EDGE, far)):
            change = at(reach * down, reach * right) - at(0, 0)
            along = at(reach * down + right, reach * right - down) - at(right, -down)
            total += weight * (change * along).mean(axis=(1, 2))
        contrast += weight * (change**2).mean(axis=(1, 2))
    # in white noise `far` is next to 0, and so is `near`
    return EDGE * near.clip(0) / np.maximum(far, contrast / 4).clip(1e-9)


def colour(images: Images) -> Numbers:
    """Return the chroma [n]: the mean over pixels of max - min of RGB, in grey levels."""
    return (images.max(axis=1) - images.min(axis=1)).mean(axis=(1, 2))


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
