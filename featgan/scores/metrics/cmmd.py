"""CLIP maximum mean discrepancy (Jayasumana et al. 2024)."""

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics, distances

SIGMA = 10
"""Standard deviation of the Gaussian kernel."""


def clip_discrepancy(real: FeatureStatistics, generated: Tensor) -> float:
    """Return the CMMD of features [n, d] of length 1, times 1,000 as published; 0 for the same.

    The squared MMD of a Gaussian kernel, with each image's kernel with itself, in float64.
    """
    x, y = generated.double(), real.features
    within_real = real.once("cmmd", lambda: _mean_kernel(y, y))
    return 1000 * (_mean_kernel(x, x) + within_real - 2 * _mean_kernel(x, y)).item()


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    sums = [torch.exp(-block.square() / (2 * SIGMA**2)).sum() for block in distances(x, y)]
    return torch.stack(sums).sum() / (len(x) * len(y))
