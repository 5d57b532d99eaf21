"""Pacing: images at one end of the order count more at first, or come before the others.

Weights are the second and third strategy of CuGAN (Soviany et al. 2020): its curriculum loss, and
sampling from a distribution that approaches the uniform one. Growing data are those of "When do
curricula work?" (Wu et al. 2021). Pure functions of ranks and time.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from featgan.seeds import derive
from featgan.staging.settings import PacingSettings

SHARES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "quadratic": lambda t: t**2,
    "root": math.sqrt,
    "exponential": lambda t: math.expm1(10 * t) / math.expm1(10),
    "logarithmic": lambda t: 1 + math.log(t + math.exp(-10)) / 10,
    "step": math.floor,
}
"""Share of the images to be added that is there after a part t < 1 of the growth."""


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


def image_count(images: int, share: float, pacing: PacingSettings) -> int:
    """Return how many of the images train after a `share` of the run (Wu et al. 2021, table 2)."""
    part = share / pacing.a
    if part >= 1:
        return images
    count = images * (pacing.b + (1 - pacing.b) * SHARES[pacing.grow](part))
    return max(1, math.floor(round(count, 6)))  # 0.3 as a float is a little less


def growth_order(values: np.ndarray, pacing: PacingSettings, seed: int) -> NDArray[np.intp]:
    """Return the positions [n] of the images in the order in which they join the training."""
    if pacing.order == "random":
        return np.random.default_rng(derive(seed, "growth")).permutation(len(values))
    signed = values.astype(np.float64) * (1 if pacing.order == "ascending" else -1)
    return np.argsort(signed, kind="stable")
