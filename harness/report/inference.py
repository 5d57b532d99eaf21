"""What a handful of seeds can tell: means, intervals, paired differences, probabilities.

Pure numpy. Three seeds make all of these coarse: a bootstrap over three numbers can give
nothing wider than their range, whatever the truth is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Paired differences `a - b` over seeds."""

    pairs: int
    mean: float
    low: float
    high: float
    """Ends of the bootstrap interval of the mean."""
    probability: float
    """Probability of improvement: that a run of `a` is above a run of `b`."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out; never so with a single pair."""
        return self.pairs > 1 and (self.low > 0 or self.high < 0)


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare values [n] with values [n] of the same seeds; raises ValueError when empty."""
    if not a or len(a) != len(b):
        raise ValueError(f"pairs of {len(a)} and {len(b)} values")
    difference = np.subtract(a, b)
    low, high = bootstrap_interval(difference)
    improvement = probability_of_improvement(a, b)
    return Comparison(len(a), float(difference.mean()), low, high, improvement)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [n], resampled with replacement."""
    sample = np.asarray(values, np.float64)
    rows = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(sample[rows].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def probability_of_improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """P(a > b) over all pairs of a value of `a` with one of `b`; ties count half.

    The Mann-Whitney statistic, as Agarwal et al. (2021) use it to compare runs.
    """
    difference = np.subtract.outer(np.asarray(a), np.asarray(b))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
