"""Improved precision and recall (Kynkäänniemi et al. 2019)."""

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics, distances, radii
from featgan.scores.settings import MANIFOLD_NEIGHBOURS


def precision_recall(real: FeatureStatistics, generated: Tensor) -> tuple[float, float]:
    """Return precision and recall, both in 0..1, of features [n, d].

    They are the share of generated images inside some real image's ball, and the share of real
    images inside some generated image's; a ball reaches the third neighbour.
    """
    generated = generated.double()
    reach = radii(generated, MANIFOLD_NEIGHBOURS)
    precision = _share_inside(generated, real.features, real.radii(MANIFOLD_NEIGHBOURS))
    return precision, _share_inside(real.features, generated, reach)


def _share_inside(points: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Return the share of `points` that lie in at least one ball."""
    inside = [(block <= reach).any(dim=1) for block in distances(points, centres)]
    return torch.cat(inside).double().mean().item()
