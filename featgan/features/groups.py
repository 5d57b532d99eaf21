"""Feature groups (paper, section 3): images split by their feature counts or other values.

Groups are found on a histogram of at most 4,097 values, as many as there are feature counts of
VGG16, so the cost hardly depends on the number of images. The best split of a line into intervals
is computed exactly (Wang and Song, "Ckmeans.1d.dp", R Journal 2011), without random starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np

from featgan.errors import UserError
from featgan.features.settings import GROUPINGS, GroupSettings
from featgan.user_code import resolve, user_code_errors

MOST_POINTS = 4097
"""Largest number of different values without bins."""


@dataclass(frozen=True)
class Group:
    """One feature group: the images with values in lowest..highest, both included."""

    number: int
    centroid: float
    size: int
    lowest: int | float
    highest: int | float


@dataclass(frozen=True)
class FeatureGroups:
    """A split of images by their values into groups numbered 1..k by rising centroid."""

    by: str
    method: str
    k: int
    groups: tuple[Group, ...]
    histogram: dict[int | float, int]
    """Number of images by rising value, or by the mean of each bin if there are bins."""

    @classmethod
    def fit(cls, values: np.ndarray, settings: GroupSettings) -> FeatureGroups:
        """Split images by their finite values [n]; groups of integers have integer bounds.

        More than 4,097 different values are put into at most 4,096 bins, except for `quantile`.
        Raises `UserError` if there are fewer than `k` different values, or a user-defined
        method fails.
        """
        # radix sort of counts takes a fifth of the time
        ordered = np.sort(values, kind="stable" if values.dtype.itemsize <= 2 else None)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        if len(starts) < settings.k:
            what = "feature counts" if settings.by == "feature_count" else "values"
            raise UserError(
                f"groups.k: {settings.k} groups need {settings.k} different {what}, but "
                f"the {len(values)} images have {len(starts)}; lower k"
            )
        bins, points = starts, ordered[starts]
        if len(starts) > MOST_POINTS:
            bins = _bins(ordered)
            points = np.add.reduceat(ordered, bins, dtype=np.float64)
            points /= np.diff(bins, append=len(ordered))
        weights = np.diff(bins, append=len(ordered))
        histogram = dict(zip(points.tolist(), weights.tolist(), strict=True))
        if settings.method == "quantile":  # fast without bins
            bins, points = starts, ordered[starts]
            weights = np.diff(starts, append=len(ordered))
        method = resolve(settings.method, _METHODS)
        with user_code_errors(settings.method):
            ends = [int(end) for end in method(points, weights, settings)]
        if len(ends) != settings.k - 1 or any(a >= b for a, b in pairwise([0, *ends, len(points)])):
            raise UserError(
                f"groups.method: {settings.method} returned the ends {ends} for {settings.k} "
                f"groups of {len(points)} values; it must return {settings.k - 1} rising ends "
                "between them"
            )
        parts = np.split(ordered, bins[ends])
        groups = tuple(
            Group(number, float(part.sum()) / len(part), len(part), part[0].item(), part[-1].item())
            for number, part in enumerate(parts, 1)
        )
        return cls(settings.by, settings.method, settings.k, groups, histogram)

    def assign(self, values: np.ndarray) -> np.ndarray:
        """Return the group numbers, int8 [n] in 1..k, of values [n]."""
        boundaries = [group.highest for group in self.groups[:-1]]
        return (1 + np.searchsorted(boundaries, values)).astype(np.int8)

    def near_boundaries(self, within: int) -> list[int]:
        """Return how many images a change by `within` moves over each of the k - 1 boundaries.

        A value is beyond a boundary if it exceeds the highest value of the group before.
        """
        values, images = np.array([*self.histogram]), np.array([*self.histogram.values()])
        tops = [group.highest for group in self.groups[:-1]]
        near = [(values > top - within) & (values <= top + within) for top in tops]
        return [int(images[of].sum()) for of in near]


def _bins(ordered: np.ndarray) -> np.ndarray:
    """Return the starts of at most 4,096 bins of rising values; equal values share a bin.

    Half of them have equal widths, which k-means needs, and half hold equally many images, so
    that a few outliers do not put all other values into one bin.
    """
    half = MOST_POINTS // 2
    by_width = np.linspace(ordered[0], ordered[-1], half, endpoint=False)
    by_count = ordered[np.arange(half) * len(ordered) // half]
    return np.unique(np.searchsorted(ordered, np.concatenate((by_width, by_count))))


def _kmeans(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    """Return the ends of the intervals with the least squared distance to their means."""
    return _best_intervals(values, weights, settings.k, 1, int(weights.sum()))


def _balanced(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    """Return the ends that `_kmeans` finds under bounds of the groups' sizes."""
    share = Fraction(int(weights.sum()), settings.k)
    tolerance = Fraction(str(settings.tolerance))  # 0.2 as a float is a little more
    # the bounds allow at least the whole numbers of images next to an equal share
    smallest = min(floor(share), ceil(share * (1 - tolerance)))
    largest = max(ceil(share), floor(share * (1 + tolerance)))
    try:
        return _best_intervals(values, weights, settings.k, max(1, smallest), largest)
    except ValueError as error:
        raise UserError(
            f"groups.tolerance: no split without dividing equal values gives {settings.k} groups "
            f"of {smallest} to {largest} images; raise tolerance, lower k, or use quantile"
        ) from error


def _quantile(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    """Return the ends of the groups with the least sum of squared sizes.

    By dynamic programming over the number of groups. The best start of a last group does not fall
    as its end rises, so the ends of a half need only the starts of that half. Of equally good
    splits the one with the earliest last boundary is taken.
    """
    k, images = settings.k, np.append(0, np.cumsum(weights))
    # Cuts nearest to equal shares cost at most k squares of the largest weight more than equal
    # groups would. So no best cut is further from its share than k / 2 of that weight.
    off = images * k % images[-1]
    tried = np.flatnonzero(2 * np.minimum(off, images[-1] - off) <= k**2 * weights.max())
    images = images[tried]
    best = np.append(np.inf, images[1:] ** 2.0)  # with one group, by its end
    starts = np.zeros((k, len(images)), np.int64)

    def add_group(group: int, ends: range, first: int, last: int) -> None:
        """Find the best starts, between `first` and `last`, of a further group with these ends."""
        if ends:
            end = ends[len(ends) // 2]
            before = slice(first, min(last + 1, end))
            costs = fewer[before] + (images[end] - images[before]) ** 2
            start = starts[group, end] = first + costs.argmin()
            best[end] = costs.min()
            add_group(group, range(ends.start, end), first, start)
            add_group(group, range(end + 1, ends.stop), start, last)

    for group in range(1, k):
        fewer = best.copy()
        add_group(group, range(group + 1, len(images)), group, len(images))
    return tried[_boundaries(starts)].tolist()


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray, GroupSettings], list[int]]] = dict(
    zip(GROUPINGS, (_kmeans, _quantile, _balanced), strict=True)
)
"""Functions of rising values and their numbers of images; they return the index after the last
value of each group but the last one."""


def _best_intervals(
    values: np.ndarray, weights: np.ndarray, k: int, smallest: int, largest: int
) -> list[int]:
    """Return the ends of the first k - 1 of the k best intervals, by dynamic programming.

    The best k intervals up to a value are the best k - 1 up to an earlier one and one more. Of
    equally good splits the one with the earliest last boundary is taken. Raises `ValueError` if no
    intervals hold `smallest` to `largest` images each.
    """
    # Relative to the middle value, so that an outlier does not cost the others their digits, and
    # scaled by a power of two, so that squares neither vanish nor overflow.
    middle = len(values) // 2
    centred = values - np.float64(values[middle])
    centred = np.ldexp(centred, -np.frexp(np.abs(centred).max())[1])
    images, sums, squares = (
        _running(weights * power, middle) for power in (np.ones(len(values)), centred, centred**2)
    )

    def one_more(end: int) -> np.ndarray:
        """Return the cost of the interval from each start to `end`, infinite for wrong sizes."""
        size, total = images[end] - images[:end], sums[end] - sums[:end]
        cost = squares[end] - squares[:end] - total**2 / size
        return np.where((size >= smallest) & (size <= largest), np.maximum(cost, 0.0), np.inf)

    best = np.full((k + 1, len(values) + 1), np.inf)  # by number of intervals and end
    best[0, 0] = 0.0
    starts = np.zeros((k, len(values) + 1), np.int64)
    for end in range(1, len(values) + 1):
        cost = best[:k, :end] + one_more(end)
        starts[:, end] = cost.argmin(axis=1)
        best[1:, end] = cost.min(axis=1)
    if not np.isfinite(best[k, -1]):
        raise ValueError("no such intervals")
    return _boundaries(starts)


def _boundaries(starts: np.ndarray) -> list[int]:
    """Return the rising boundaries of the best split of all values.

    `starts` [k, n] has, for each number of further groups, the best start of the last by its end.
    """
    ends = [starts.shape[1] - 1]
    for row in starts[:0:-1]:
        ends.append(int(row[ends[-1]]))
    return ends[:0:-1]


def _running(terms: np.ndarray, middle: int) -> np.ndarray:
    """Return the sums [n + 1] of terms [n] from the middle to each end, negative before it."""
    before = np.cumsum(terms[:middle][::-1])[::-1]
    return np.concatenate((-before, [0.0], np.cumsum(terms[middle:])))
