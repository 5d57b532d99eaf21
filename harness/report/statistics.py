"""Means, intervals and paired differences over seeds: pure functions on arrays.

Three seeds make all of these coarse: a bootstrap over three numbers gives nothing wider than
their range, however far from it the truth is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Values = Sequence[float] | np.ndarray | pd.Series
"""Values [n], one a seed."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Paired differences `a - b` over seeds."""

    pairs: int
    mean: float
    low: float
    high: float
    """Ends of the 95 % bootstrap interval of the mean."""
    probability: float
    """Probability of improvement: that a run of `a` is above a run of `b`."""

    @property
    def clear(self) -> bool:
        """True if the interval excludes zero; never with a single pair."""
        return self.pairs > 1 and (self.low > 0 or self.high < 0)

    def interval(self, digits: int) -> str:
        """Return the interval as text with signs, such as `-0.080 to +0.443`."""
        return f"{self.low:+.{digits}f} to {self.high:+.{digits}f}"


def compare(a: Values, b: Values) -> Comparison:
    """Compare values [n] with values [n] of the same seeds; raise ValueError if empty."""
    if len(a) == 0 or len(a) != len(b):
        raise ValueError(f"pairs of {len(a)} and {len(b)} values")
    difference = np.subtract(a, b)
    low, high = bootstrap_interval(difference)
    return Comparison(len(a), float(difference.mean()), low, high, probability_of_improvement(a, b))


def bootstrap_interval(values: Values) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` [n], from a fixed seed."""
    sample = np.asarray(values, np.float64)
    rows = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.quantile(sample[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def probability_of_improvement(a: Values, b: Values) -> float:
    """Return P(a > b) over all pairs of a value of `a` with one of `b`; ties count half.

    The Mann-Whitney statistic, used to compare runs as in Agarwal et al. (2021).
    """
    difference = np.subtract.outer(np.asarray(a), np.asarray(b))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def mean(values: Values) -> float:
    """Return the mean; NaN of nothing, and NaN if one value is."""
    return float(np.mean(np.asarray(values))) if len(values) else np.nan


def deviation(values: Values) -> float:
    """Return the sample standard deviation (n - 1); NaN of fewer than two values."""
    return float(np.std(np.asarray(values), ddof=1)) if len(values) > 1 else np.nan
