"""Feature groups (paper, section 3): images split by their feature counts.

Counts are integers in 0..4096, so all of this works on a histogram: its cost does not grow
with the number of images. The best split of a line into intervals can be computed exactly
(Wang and Song, "Ckmeans.1d.dp", R Journal 2011), so no result depends on a start or a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from featgan.errors import UserError
from featgan.settings import Settings


class GroupSettings(Settings):
    """How images are split by their feature counts."""

    method: Literal["kmeans", "quantile", "balanced"] = "kmeans"
    """`kmeans` (the paper's), `quantile` (sizes as equal as ties allow) or `balanced` (k-means
    whose sizes are bounded by `tolerance`)."""
    k: int = Field(default=3, ge=1, le=64)
    """Number of groups."""
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    """For `balanced`: how far a group's size may be from images / k, as a share of it."""


@dataclass(frozen=True)
class Group:
    """One feature group: images whose counts lie in lowest..highest, both included."""

    number: int
    centroid: float
    size: int
    lowest: int
    highest: int


@dataclass(frozen=True)
class FeatureGroups:
    """A split of feature counts into groups, numbered 1..k by rising centroid."""

    method: str
    k: int
    groups: tuple[Group, ...]
    histogram: dict[int, int]
    """Images of each count that occurs, by rising count."""

    @classmethod
    def fit(cls, counts: np.ndarray, settings: GroupSettings) -> FeatureGroups:
        """Split integer counts [n]; raises `UserError` where `k` groups are not to be had."""
        frequencies = np.bincount(counts)
        values = np.flatnonzero(frequencies)
        weights = frequencies[values]
        if len(values) < settings.k:
            raise UserError(
                f"groups.k: {settings.k} groups need {settings.k} different feature counts, but "
                f"the {len(counts)} images have {len(values)}; lower k"
            )
        ends = _METHODS[settings.method](values, weights, settings)
        groups = []
        for number, (start, end) in enumerate(
            zip([0, *ends], [*ends, len(values)], strict=True), 1
        ):
            size = int(weights[start:end].sum())
            centroid = float(values[start:end] @ weights[start:end]) / size
            low, high = int(values[start]), int(values[end - 1])
            groups.append(Group(number, centroid, size, low, high))
        histogram = dict(zip(values.tolist(), weights.tolist(), strict=True))
        return cls(settings.method, settings.k, tuple(groups), histogram)

    def assign(self, counts: np.ndarray) -> np.ndarray:
        """The number of each count's group, 1..k: integers [n] -> int8 [n]."""
        highest = [group.highest for group in self.groups[:-1]]
        table = 1 + np.searchsorted(highest, np.arange(4097), side="left").astype(np.int8)
        return table[counts]

    def near_boundaries(self, within: int) -> list[int]:
        """Images whose count would cross each of the k - 1 boundaries if it moved by `within`.

        A boundary lies between the highest count of a group and the lowest of the next.
        """
        return [
            sum(
                images
                for count, images in self.histogram.items()
                if after.lowest - within <= count <= before.highest + within
            )
            for before, after in zip(self.groups, self.groups[1:], strict=False)
        ]

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> FeatureGroups:
        """What `to_json` wrote."""
        record = json.loads(text)
        groups = tuple(Group(**group) for group in record["groups"])
        histogram = {int(count): images for count, images in record["histogram"].items()}
        return cls(record["method"], record["k"], groups, histogram)


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


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray, GroupSettings], list[int]]] = {
    "kmeans": _kmeans,
    "quantile": _quantile,
    "balanced": _balanced,
}


def _best_intervals(
    values: np.ndarray, weights: np.ndarray, k: int, smallest: int, largest: int
) -> list[int]:
    """Ends of the first k - 1 of k intervals with the least squared distance to their means.

    Every interval holds `smallest` to `largest` images; `ValueError` where that is impossible.
    Dynamic programming: the best k intervals up to here are the best k - 1 up to some point
    and one more. Of equally good splits the one with the earliest last boundary is taken.
    """
    # measured from their mean, so that the squares below lose no digits
    centred = values - values @ weights / weights.sum()
    images, sums, squares = (
        np.concatenate(([0.0], np.cumsum(weights * power)))
        for power in (np.ones(len(values)), centred, centred**2)
    )

    def one_more(end: int) -> np.ndarray:
        """Cost of the interval from each start to `end`, infinite where its size is wrong."""
        size, total = images[end] - images[:end], sums[end] - sums[:end]
        cost = squares[end] - squares[:end] - total**2 / size
        return np.where((size >= smallest) & (size <= largest), np.maximum(cost, 0.0), np.inf)

    best = np.full(len(values) + 1, np.inf)
    best[0] = 0.0
    starts = np.zeros((k, len(values) + 1), np.int64)
    for interval in range(k):
        previous, best = best, np.full(len(values) + 1, np.inf)
        for end in range(interval + 1, len(values) + 1):
            cost = previous[:end] + one_more(end)
            starts[interval, end] = cost.argmin()
            best[end] = cost[starts[interval, end]]
    if not np.isfinite(best[-1]):
        raise ValueError("no such intervals")
    ends = [len(values)]
    for interval in range(k - 1, 0, -1):
        ends.append(int(starts[interval, ends[-1]]))
    return ends[:0:-1]
