"""Comparisons over seeds: intervals, sign-flip tests, families of claims, a sequential test.

Pure functions on arrays. A difference of two runs that differ in nothing has a distribution that
is symmetric about zero, however their scores are distributed: flipping its sign is as likely as
not. docs/method.md has the levels and the power of these tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import betainc, stdtrit

from harness.plan.power import LEVEL
from harness.plan.settings import FEWEST_SEEDS

Values = Sequence[float] | np.ndarray | pd.Series
"""Values [n], one a seed."""
EXACT = 1 << 19
"""Most sign flips of one comparison: all those of 20 pairs."""
FLIPS = 1 << 12
"""Most sign flips of a family of claims: all those of 13 seeds."""
ROUNDING = 1e-12
"""Statistics that differ by less are equal."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences over seeds."""

    pairs: int
    mean: float
    sd: float
    low: float
    high: float
    """Ends of the mean's 95 % interval by Student's t; NaN of a single pair."""
    p: float
    """Two-sided, of the sign-flip test: all flips of up to 20 pairs, above drawn ones."""
    skewed: bool
    """True if the differences look skewed: more than twice the skewness' standard error."""


def compare(a: Values, b: Values | None = None) -> Comparison:
    """Compare values [n] with values [n] of the same seeds, or differences [n] with 0.

    Raises ValueError if there are none, or one is missing.
    """
    n, others = len(a), np.zeros(len(a)) if b is None else np.asarray(b, float)
    if n == 0 or n != len(others) or np.isnan([*a, *others]).any():
        raise ValueError(f"pairs of {n} and {len(others)} values, or of missing values")
    difference = np.asarray(a, float) - others
    mean, sd = float(difference.mean()), float(difference.std(ddof=1)) if n > 1 else np.nan
    half = float(stdtrit(n - 1, 0.975)) * sd / n**0.5
    rest = difference - mean
    error = (6 * max(n - 2, 1) / ((n + 1) * (n + 3))) ** 0.5  # of the skewness
    skewed = bool(abs((rest**3).mean()) > 2 * error * ((rest**2).mean() + ROUNDING**2) ** 1.5)
    p = float(step_down(difference[None])[0])
    return Comparison(n, mean, sd, mean - half, mean + half, p, skewed)


def improvement(a: Values, b: Values) -> tuple[float, float, float]:
    """Return P(a > b) over all pairs of a value of `a` with one of `b`, and its 95 % interval.

    Ties count half: the Mann-Whitney statistic, as in Agarwal et al. (2021). The interval is
    Newcombe's (2006, method 5), a score interval with the variance of Hanley and McNeil.
    """
    difference = np.subtract.outer(np.asarray(a), np.asarray(b))
    found = float((difference > 0).mean() + 0.5 * (difference == 0).mean())
    p, weight = np.linspace(0, 1, 10_001), (len(a) + len(b)) / 2 - 1
    variance = p * (1 - p) * (1 + weight * ((1 - p) / (2 - p) + p / (1 + p))) / difference.size
    low, *_, high = p[(found - p) ** 2 <= 1.96**2 * variance + ROUNDING]
    return found, float(low), float(high)


def step_down(differences: np.ndarray) -> np.ndarray:
    """Return p-values [claims] of differences [claims, seeds], corrected for all claims.

    The step-down of Westfall and Young (1993) over sign flips of whole seeds: claims that share
    their seeds are corrected less than by Holm. NaN marks a missing pair.
    """
    seeds = differences.shape[1]
    most = FLIPS if len(differences) > 1 else EXACT
    flips = sign_flips(seeds, min(1 << max(seeds - 1, 0), most))
    observed = _statistics(differences, flips[:1])[0]
    order = np.argsort(observed, kind="stable")
    reached = np.zeros(len(order))
    for start in range(0, len(flips), 512):  # thousands of pairs fit into memory
        part = _statistics(differences[order], flips[start : start + 512])
        # of each claim: the highest statistic among those no clearer than it
        highest = np.maximum.accumulate(part, axis=1)
        reached += (highest >= observed[order] - ROUNDING).sum(axis=0)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(reached[::-1])[::-1] / len(flips)
    return corrected


def sequential(differences: np.ndarray, up_to: int) -> np.ndarray:
    """Return for each claim the number of seeds at which it was decided; 0 if it is open.

    A group-sequential test of differences [claims, seeds] with a look at each number of seeds, at
    most `up_to`. Until `n` seeds, `LEVEL * n / up_to` of the flips may cross the bound (Lan and
    DeMets 1983): at each look those with the highest statistic that have not crossed before. The
    data are one of the flips and as likely as each to cross. Further seeds change no decision.
    """
    flips = sign_flips(up_to, FLIPS)
    looks = range(FEWEST_SEEDS, min(differences.shape[1], up_to) + 1)
    statistics = {n: _statistics(differences[:, :n], flips[:, :n]) for n in looks}
    decided, latest = np.zeros(len(differences), int), 0
    while not decided.all():
        crossed = np.zeros(FLIPS, bool)
        for n in looks:
            highest = statistics[n][:, decided == 0].max(axis=1)
            room = int(LEVEL * n / up_to * FLIPS) - crossed.sum()
            bound = np.partition(highest[~crossed], -room - 1)[-room - 1] if room > 0 else np.inf
            crossed |= highest > bound + ROUNDING
            if crossed[0]:
                break
        else:
            break
        latest = max(latest, n)
        # with these claims decided, the bounds of the others are lower, from the first look on
        decided[(decided == 0) & (statistics[n][0] > bound + ROUNDING)] = latest
    return decided


@lru_cache(maxsize=2)
def sign_flips(seeds: int, count: int) -> np.ndarray:
    """Return sign flips [count, seeds], 1 or -1; the first is the identity. `count` is 2^bits.

    A flip and its opposite have the same statistic, so the first seed keeps its sign. Of the
    further seeds the first `bits` have all flips; those of the others follow from a fixed random
    code, so that the flips are a group and tests over them exact.
    """
    drawn = np.random.default_rng(0).integers(1, max(count, 2), seeds)
    masks = np.array([0, *(1 << np.arange(count.bit_length() - 1)), *drawn][:seeds], np.int32)
    return 1.0 - 2 * (np.bitwise_count(np.arange(count, dtype=np.int32)[:, None] & masks) & 1)


def _statistics(differences: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Return a statistic [flips, claims], 0 to 1, that rises with Student's |t|.

    It is t² / (t² + n - 1); or, where claims differ in their pairs n, its distribution function
    for normal differences, so that it compares between claims.
    """
    known = np.isfinite(differences)
    n, values = known.sum(axis=1), np.where(known, differences, 0)
    squares = np.maximum(n * (values**2).sum(axis=1), np.finfo(float).tiny)
    share = np.minimum((flips @ values.T) ** 2 / squares, 1) * (n > 1)
    if len({*n}) > 1:
        share = betainc(0.5, np.maximum(n - 1, 1) / 2, share)
    return share
