"""Pacing: all current images train, but images at one end of the order count more at first.

The second and third strategy of CuGAN (Soviany et al. 2020): its curriculum loss, and sampling
from a distribution that approaches the uniform one. Pure functions of ranks and time.
"""

import math

import numpy as np
from numpy.typing import NDArray

from featgan.staging.settings import PacingSettings


def ranks(values: np.ndarray) -> NDArray[np.float64]:
    """Return the rank [n] of each image by its value, from -1 (lowest) to 1 (highest).

    Equal values share a rank, and the mean is 0.
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    last = len(values) - 1
    unique_ranks: NDArray[np.float64] = (2 * middle - last) / max(last, 1)
    return unique_ranks[inverse]


def image_weights(ranks: np.ndarray, share: float, pacing: PacingSettings) -> NDArray[np.float64]:
    """Return the weight [n] of each image after a `share` of the run: 0..2, on average 1.

    1 - rank · exp(-decay · share), after CuGAN's 1 - k · s · exp(-γ t). Ranks replace its
    difficulties s, so that the scale of the values does not matter.
    """
    signed = ranks if pacing.first == "low" else -ranks
    return 1 - signed * math.exp(-pacing.decay * share)
