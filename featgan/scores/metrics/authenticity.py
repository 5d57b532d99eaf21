"""Authenticity (Alaa et al. 2022), a measure of memorisation."""

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics, distances


def authenticity(real: FeatureStatistics, generated: Tensor) -> float:
    """Return AuthPct of features [n, d]: 0 for copies, 50 or so for the training distribution.

    The percentage of images that are further from their nearest training image than that one is
    from the training image nearest to it.
    """
    reach, authentic = real.radii(1), []
    for block in distances(generated.double(), real.features):
        nearest = block.min(dim=1)
        authentic.append(reach[nearest.indices] < nearest.values)
    return 100 * torch.cat(authentic).sum().item() / len(generated)
