"""Fréchet Inception Distance (Heusel et al. 2017)."""

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics


def frechet_distance(real: FeatureStatistics, generated: Tensor) -> float:
    """Return the FID of features [n, d]: the distance of two Gaussians, 0 for the same.

    |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr √(Σ₁ Σ₂), in float64. With Σ₁ = AᵀA and Σ₂ = BᵀB the last
    trace is the sum of the singular values of ABᵀ, computed from the smaller of its Gram matrices.

    It is biased upwards, the more the fewer images there are: compare at equal numbers, and with
    more images than features.
    """
    generated = generated.double()
    root, spread = real.once("root", lambda: _root(real.features)), _spread(generated)
    product = root @ spread.T
    product = product if product.shape[0] <= product.shape[1] else product.T
    overlap = torch.linalg.eigvalsh(product @ product.T).clamp_min(0).sqrt().sum()
    means = (real.mean - generated.mean(dim=0)).square().sum()
    return (means + root.square().sum() + spread.square().sum() - 2 * overlap).item()


def _root(features: Tensor) -> Tensor:
    """Return a matrix [min(n, d), d] whose transpose times itself is the covariance."""
    spread = _spread(features)
    return torch.linalg.qr(spread, mode="r").R if len(spread) > spread.shape[1] else spread


def _spread(features: Tensor) -> Tensor:
    return (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
