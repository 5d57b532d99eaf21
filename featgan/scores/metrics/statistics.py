"""Features of real images, and what metrics derive from features: distances and radii of balls."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

ROWS = 1024
"""Rows of a block of distances, so that 60,000 real images fit into memory."""


class TooFew(ValueError):
    """A metric needs more images: each has fewer neighbours than the ball is to reach."""


class FeatureStatistics:
    """Features [n, d] of the real images in float64, and a cache of what follows from them."""

    def __init__(self, features: Tensor, held_out: int = 0) -> None:
        """Take the features of images, of which the first `held_out` are kept apart."""
        self.held_out, self.features = features[:held_out].double(), features[held_out:].double()
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.features)

    @property
    def mean(self) -> Tensor:
        """Mean [d] of the features."""
        return self.once("mean", lambda: self.features.mean(dim=0))

    def radii(self, neighbours: int) -> Tensor:
        """Return the `radii` of the features, computed once."""
        return self.once(("radii", neighbours), lambda: radii(self.features, neighbours))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` returned when it was first called for `key`."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield the Euclidean distances [rows, len(y)] of the rows of `x` in blocks."""
    return (torch.cdist(rows, y) for rows in x.split(ROWS))


def radii(features: Tensor, neighbours: int) -> Tensor:
    """Return the distance [n] of each row to its `neighbours`-th nearest other row.

    Raises `TooFew` if there are not so many other rows.
    """
    if len(features) <= neighbours:
        raise TooFew(f"{len(features)} images have no {neighbours} neighbours each")
    blocks = [block.topk(neighbours + 1, largest=False) for block in distances(features, features)]
    return torch.cat([block.values[:, -1] for block in blocks])  # sorted; the first is itself
