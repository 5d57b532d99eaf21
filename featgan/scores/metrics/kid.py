"""Kernel Inception Distance (Bińkowski et al. 2018)."""

import numpy as np
import torch
from torch import Tensor

from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.settings import KERNEL_SUBSET_SIZE, KERNEL_SUBSETS


def kernel_distance(real: FeatureStatistics, generated: Tensor) -> tuple[float, float]:
    """Return the KID of features [n, d] and its standard deviation over subsets.

    The unbiased MMD² of a cubic kernel, in float64: the mean over `KERNEL_SUBSETS` draws of
    `KERNEL_SUBSET_SIZE` images of each kind (of all, if there are fewer; the deviation is then 0),
    with a fixed seed and in torch-fidelity's order. It can be a little below 0; its expectation
    does not depend on n.
    """
    x, y = generated.double(), real.features
    size = min(KERNEL_SUBSET_SIZE, len(x), len(y))
    subsets = 1 if size == len(x) == len(y) else KERNEL_SUBSETS  # one draw is all of them
    random = np.random.RandomState(2020)
    draws = [(_draw(random, x, size), _draw(random, y, size)) for _ in range(subsets)]
    key = ("kid", len(x), size, subsets)  # what the draws depend on
    within_real = real.once(key, lambda: [_mean_within(y[of_y]) for _, of_y in draws])
    distances = [
        _mean_within(x[of_x]) + within - 2 * _kernel(x[of_x], y[of_y]).mean()
        for (of_x, of_y), within in zip(draws, within_real, strict=True)
    ]
    found = torch.stack(distances)
    return found.mean().item(), found.std(correction=0).item()


def _draw(random: np.random.RandomState, features: Tensor, size: int) -> Tensor:
    """Return `size` different row numbers of `features`."""
    rows = random.choice(len(features), size, replace=False)
    return torch.from_numpy(rows).to(features.device)


def _mean_within(x: Tensor) -> Tensor:
    """Return the mean of the kernel over all pairs of different rows of `x`."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.diagonal().sum()) / (len(x) * (len(x) - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
