"""Pacing: all current images train, but those at one end of the order count for more at first.

The second and third strategy of CuGAN (Soviany et al. 2020): its curriculum loss and its
sampling from a distribution that moves to the uniform one. Pure functions of ranks and time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from featgan.staging.settings import PacingSettings


def ranks(values: np.ndarray) -> NDArray[np.float64]:
    """Each image's place [n] in the order of its image score: -1 the lowest, 1 the highest.

    Equal scores share a place, and the mean is 0.
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    last = len(values) - 1
    places: NDArray[np.float64] = (2 * middle - last) / max(last, 1)
    return places[inverse]


def favour(ranks: np.ndarray, share: float, pacing: PacingSettings) -> NDArray[np.float64]:
    """Weight [n], 0..2 and 1 on average, of images of `ranks` [n] after a `share` of the run.

    1 - rank · exp(-decay · share), after CuGAN's 1 - k · s · exp(-γ t); ranks in place of the
    difficulties s, so that the scale of an image score does not matter.
    """
    signed = ranks if pacing.first == "low" else -ranks
    return 1 - signed * math.exp(-pacing.decay * share)
