"""Density and coverage (Naeem et al. 2020)."""

import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics, distances
from featgan.scores.settings import DENSITY_NEIGHBOURS


def density_coverage(real: FeatureStatistics, generated: Tensor) -> tuple[float, float]:
    """Return density (from 0, 1 for the real distribution) and coverage (0..1) of features [n, d].

    Density is the number of real images' balls that a generated image lies in, divided by the
    neighbours in a ball; coverage is the share of real images with a generated one in their ball.
    Coverage depends on the numbers of images of both kinds: compare at equal numbers.
    """
    reach, nearest, inside = real.radii(DENSITY_NEIGHBOURS), [], []
    for block in distances(generated.double(), real.features):
        nearest.append(block.amin(dim=0))
        inside.append((block < reach).sum())
    density = torch.stack(inside).sum().double() / (DENSITY_NEIGHBOURS * len(generated))
    coverage = (torch.stack(nearest).amin(dim=0) < reach).double().mean()
    return density.item(), coverage.item()
