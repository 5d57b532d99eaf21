"""Intervals and paired differences over seeds: pure functions on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

Values = Sequence[float] | np.ndarray | pd.Series
"""Values [n], one a seed."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences `a - b` over seeds."""

    pairs: int
    mean: float
    low: float
    high: float
    """Ends of the mean's 95 % interval by Student's t; NaN of a single pair."""
    probability: float
    """Probability of improvement: that a run of `a` is above a run of `b`."""

    @property
    def clear(self) -> bool:
        """True if the interval excludes zero; never with a single pair."""
        return self.low > 0 or self.high < 0

    def interval(self, digits: int) -> str:
        """Return the interval as text with signs, such as `-0.080 to +0.443`."""
        return f"{self.low:+.{digits}f} to {self.high:+.{digits}f}"


def compare(a: Values, b: Values) -> Comparison:
    """Compare values [n] with values [n] of the same seeds; raise ValueError if empty."""
    if len(a) == 0 or len(a) != len(b):
        raise ValueError(f"pairs of {len(a)} and {len(b)} values")
    pairs, difference = len(a), np.subtract(a, b)
    mean, half = float(difference.mean()), np.nan
    if pairs > 1:
        half = float(stdtrit(pairs - 1, 0.975) * difference.std(ddof=1) / np.sqrt(pairs))
    return Comparison(pairs, mean, mean - half, mean + half, probability_of_improvement(a, b))


def probability_of_improvement(a: Values, b: Values) -> float:
    """Return P(a > b) over all pairs of a value of `a` with one of `b`; ties count half.

    The Mann-Whitney statistic, used to compare runs as in Agarwal et al. (2021).
    """
    difference = np.subtract.outer(np.asarray(a), np.asarray(b))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
