"""Features of images for tests of the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

SIZES = [(300, 400, 20), (50, 60, 80), (300, 40, 64), (40, 300, 64)]
"""Generated images, real images, width."""


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated, positive, float32: like a network's pooled features."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=random) @ mix + shift).relu()


def line(*points: float) -> Tensor:
    """Features of width 1."""
    return torch.tensor(points)[:, None]
