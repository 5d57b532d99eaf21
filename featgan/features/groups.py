"""Feature groups (paper, section 3): images split by a value each, the feature count or another.

All of this works on a histogram of at most 4,097 values, which is what feature counts have:
its cost hardly grows with the number of images. The best split of a line into intervals can be
computed exactly (Wang and Song, "Ckmeans.1d.dp", R Journal 2011), so no result depends on a
start or a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from featgan.errors import UserError
from featgan.features.settings import GROUPINGS, GroupSettings
from featgan.user_code import resolve, user_code_errors

MOST = 4097
"""Different values that are kept apart: as many as there are feature counts of VGG16."""


@dataclass(frozen=True)
class Group:
    """One feature group: images whose values lie in lowest..highest, both included."""

    number: int
    centroid: float
    size: int
    lowest: int | float
    highest: int | float


@dataclass(frozen=True)
class FeatureGroups:
    """A split of images by a value each, into groups numbered 1..k by rising centroid."""

    by: str
    method: str
    k: int
    groups: tuple[Group, ...]
    histogram: dict[int | float, int]
    """Images of each value that occurs, by rising value; of over 4,097 values, by bins' means."""

    @classmethod
    def fit(cls, values: np.ndarray, settings: GroupSettings) -> FeatureGroups:
        """Split finite numbers [n], whose kind is kept: integers stay integers.

        Raises `UserError` where `k` groups are not to be had. Of more than 4,097 different
        values only 4,096 boundaries are tried.
        """
        # counts by their digits, which takes a fifth of the time
        ordered = np.sort(values, kind="stable" if values.dtype.itemsize <= 2 else None)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        if len(starts) < settings.k:
            what = "feature counts" if settings.by == "feature_count" else "values"
            raise UserError(
                f"groups.k: {settings.k} groups need {settings.k} different {what}, but "
                f"the {len(values)} images have {len(starts)}; lower k"
            )
        points = ordered[starts]
        if len(starts) > MOST:
            starts = _bins(ordered)
            points = np.add.reduceat(ordered, starts, dtype=np.float64)
            points /= np.diff(starts, append=len(ordered))
        weights = np.diff(starts, append=len(ordered))
        method = resolve(settings.method, _METHODS)
        with user_code_errors(settings.method):
            ends = [int(end) for end in method(points, weights, settings)]
        if len(ends) != settings.k - 1 or any(a >= b for a, b in pairwise([0, *ends, len(points)])):
            raise UserError(
                f"groups.method: {settings.method} gave the ends {ends} for {settings.k} groups of "
                f"{len(points)} values; it must give {settings.k - 1}, rising, of one value or more"
            )
        inner = starts[ends]
        parts = np.split(ordered, inner)
        groups = tuple(
            Group(number, float(part.sum()) / len(part), len(part), part[0].item(), part[-1].item())
            for number, part in enumerate(parts, 1)
        )
        histogram = dict(zip(points.tolist(), weights.tolist(), strict=True))
        return cls(settings.by, settings.method, settings.k, groups, histogram)

    def assign(self, values: np.ndarray) -> np.ndarray:
        """The number of each value's group, 1..k: numbers [n] -> int8 [n]."""
        numbers = np.ones(len(values), np.int8)
        for group in self.groups[:-1]:
            numbers += values > group.highest
        return numbers

    def near_boundaries(self, within: int) -> list[int]:
        """Images that `assign` would put beyond each of the k - 1 boundaries if moved by `within`.

        A value is beyond a boundary as soon as it exceeds the highest of the group before.
        """
        return [
            sum(
                images
                for value, images in self.histogram.items()
                if before.highest - within < value <= before.highest + within
            )
            for before in self.groups[:-1]
        ]


def _bins(ordered: np.ndarray) -> np.ndarray:
    """Where each of at most 4,096 bins of rising values starts; equal values share a bin.

    Half of these are of equal width, which k-means needs, and half hold equally many images,
    so that a few far values do not press all others into one bin.
    """
    half = MOST // 2
    by_width = np.linspace(ordered[0], ordered[-1], half, endpoint=False)
    by_count = ordered[np.arange(half) * len(ordered) // half]
    return np.unique(np.searchsorted(ordered, np.concatenate((by_width, by_count))))


def _kmeans(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    return _best_intervals(values, weights, settings.k, 1, int(weights.sum()))


def _balanced(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    share = weights.sum() / settings.k
    # within the tolerance, but never stricter than whole numbers of images allow
    smallest = int(min(np.floor(share), np.ceil(share * (1 - settings.tolerance))))
    largest = int(max(np.ceil(share), np.floor(share * (1 + settings.tolerance))))
    try:
        return _best_intervals(values, weights, settings.k, max(1, smallest), largest)
    except ValueError as error:
        raise UserError(
            f"groups.tolerance: equal counts cannot be parted so that each of {settings.k} groups "
            f"has {smallest} to {largest} images; raise tolerance, lower k, or use quantile"
        ) from error


def _quantile(values: np.ndarray, weights: np.ndarray, settings: GroupSettings) -> list[int]:
    """Ends nearest to the wanted shares; each group keeps at least one count."""
    below = np.cumsum(weights)
    ends: list[int] = []
    for number in range(1, settings.k):
        first = (ends[-1] if ends else 0) + 1
        last = len(values) - (settings.k - number)
        wanted = below[-1] * number / settings.k
        ends.append(first + int(np.abs(below[first - 1 : last] - wanted).argmin()))
    return ends


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray, GroupSettings], list[int]]] = dict(
    zip(GROUPINGS, (_kmeans, _quantile, _balanced), strict=True)
)
"""From rising values and how many images have each: where each group but the last ends."""


def _best_intervals(
    values: np.ndarray, weights: np.ndarray, k: int, smallest: int, largest: int
) -> list[int]:
    """Ends of the first k - 1 of k intervals with the least squared distance to their means.

    Every interval holds `smallest` to `largest` images; `ValueError` where that is impossible.
    Dynamic programming: the best k intervals up to here are the best k - 1 up to some point
    and one more. Of equally good splits the one with the earliest last boundary is taken.
    """
    # Measured from the middle one, outwards, so that a far value costs no other its digits; and by
    # a power of two, so that squares neither vanish nor overflow.
    middle = len(values) // 2
    centred = values - np.float64(values[middle])
    centred = np.ldexp(centred, -np.frexp(np.abs(centred).max())[1])
    images, sums, squares = (
        _running(weights * power, middle) for power in (np.ones(len(values)), centred, centred**2)
    )

    def one_more(end: int) -> np.ndarray:
        """Cost of the interval from each start to `end`, infinite where its size is wrong."""
        size, total = images[end] - images[:end], sums[end] - sums[:end]
        cost = squares[end] - squares[:end] - total**2 / size
        return np.where((size >= smallest) & (size <= largest), np.maximum(cost, 0.0), np.inf)

    best = np.full((k + 1, len(values) + 1), np.inf)  # of so many intervals, up to each end
    best[0, 0] = 0.0
    starts = np.zeros((k, len(values) + 1), np.int64)
    for end in range(1, len(values) + 1):
        cost = best[:k, :end] + one_more(end)
        starts[:, end] = cost.argmin(axis=1)
        best[1:, end] = cost.min(axis=1)
    if not np.isfinite(best[k, -1]):
        raise ValueError("no such intervals")
    ends = [len(values)]
    for interval in range(k - 1, 0, -1):
        ends.append(int(starts[interval, ends[-1]]))
    return ends[:0:-1]


def _running(terms: np.ndarray, middle: int) -> np.ndarray:
    """Sums of terms [n] from the middle one to each place: [n + 1], negative before it."""
    before = np.cumsum(terms[:middle][::-1])[::-1]
    return np.concatenate((-before, [0.0], np.cumsum(terms[middle:])))
