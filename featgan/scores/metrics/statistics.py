"""Features of real images, and values that metrics derive from them alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class FeatureStatistics:
    """Features [n, d] of the real images in float64, and a cache of what follows from them."""

    def __init__(self, features: Tensor) -> None:
        self.features = features.double()
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.features)

    @property
    def mean(self) -> Tensor:
        """Mean [d] of the features."""
        return self.once("mean", lambda: self.features.mean(dim=0))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` returned when it was first called for `key`."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]
