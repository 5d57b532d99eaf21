"""Euclidean distances in blocks of rows, and balls that reach a nearest neighbour."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics

ROWS = 1024
"""Rows of a block, so that 60,000 real images fit into memory."""


class TooFew(ValueError):
    """A metric needs more images: each has fewer neighbours than the ball is to reach."""


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield the Euclidean distances [rows, len(y)] of the rows of `x` in blocks."""
    return (torch.cdist(rows, y) for rows in x.split(ROWS))


def radii(features: Tensor, neighbours: int) -> Tensor:
    """Return the distance [n] of each row to its `neighbours`-th nearest other row.

    Raises `TooFew` if there are not so many other rows.
    """
    if len(features) <= neighbours:
        raise TooFew(f"{len(features)} images have no {neighbours} neighbours each")
    blocks = distances(features, features)
    nearest = [block.topk(neighbours + 1, largest=False).values for block in blocks]
    return torch.cat([block[:, -1] for block in nearest])  # sorted; the first is itself


def real_radii(real: FeatureStatistics, neighbours: int) -> Tensor:
    """Return `radii` of the real images, computed once."""
    return real.once(("radii", neighbours), lambda: radii(real.features, neighbours))
