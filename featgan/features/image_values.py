"""Values of images by which they can be ordered and grouped.

Each function takes uint8 RGB images [n, 3, S, S] and returns float64 [n]; the value of an image
depends on its own pixels alone. Values with other inputs, such as the feature count or a column of
a table, are made elsewhere.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

VERSION = 1
"""Part of the name of stored values; raise it when a function below returns other values."""
HELD_OUT = -2
"""Stands for the number of the label of an image that is held out."""
JPEG_QUALITY = 75
EDGE = 16
"""Smallest difference of neighbours at an edge, in grey levels."""


def jpeg_size(images: np.ndarray) -> np.ndarray:
    """Return the size in bytes of each image saved as a JPEG of quality 75."""
    sizes = []
    for image in images:
        file = io.BytesIO()
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        Image.fromarray(pixels).save(file, "jpeg", quality=JPEG_QUALITY)
        sizes.append(file.tell())
    return np.array(sizes, np.float64)


def entropy(images: np.ndarray) -> np.ndarray:
    """Return the entropy of each image's 256 grey levels in bits (Shannon 1948), 0..8."""
    shares = np.stack([np.bincount(image.ravel(), minlength=256) for image in grey(images)])
    shares = shares / shares.sum(axis=1, keepdims=True)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.abs((shares * logarithms).sum(axis=1))


def edge_density(images: np.ndarray) -> np.ndarray:
    """Return the share of each image's pixels with a gradient over 16 grey levels.

    The gradient is that of forward differences to the right and downwards.
    """
    levels = grey(images).astype(np.int32)
    across, down = np.diff(levels, axis=2)[:, :-1], np.diff(levels, axis=1)[:, :, :-1]
    return (across**2 + down**2 > EDGE**2).mean(axis=(1, 2))


def grey(images: np.ndarray) -> np.ndarray:
    """Return the luminance, uint8 [n, S, S], of uint8 images [n, 3, S, S].

    ITU-R 601's weights as integers, as in Pillow, so that it is equal on every machine.
    """
    red, green, blue = images.astype(np.uint32).transpose(1, 0, 2, 3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


PIXEL_VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    value.__name__: value for value in (jpeg_size, entropy, edge_density)
}
"""Functions by their names in `groups.by`."""


def highest(values: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Return, bool [n], the `share` of the images of each label with the highest values.

    Of equal values the first; of each label at least one image. `labels` are numbers [n].
    """
    kept = np.zeros(len(values), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(-values[rows], kind="stable")
        kept[rows[order[: max(1, round(share * len(rows)))]]] = True
    return kept
