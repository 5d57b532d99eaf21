"""How far generated images are from real ones, from a classifier's features of both.

FID, KID, precision and recall, density and coverage: pure functions of features [n, d],
summed in float64. What they need of the real images is computed once, when first asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from featgan.scores.settings import DENSITY_NEIGHBOURS, MANIFOLD_NEIGHBOURS, reported
from featgan.user_code import resolve, user_code_errors

ROWS = 1024
"""Distances are taken so many rows at a time: 60,000 real images fit."""


class TooFew(ValueError):
    """Fewer images than a metric looks at neighbours."""


class FeatureStatistics:
    """Features [n, d] of the real images, and what the metrics derive from them alone."""

    def __init__(self, features: Tensor) -> None:
        self.features = features.double()
        self._drawn: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def mean(self) -> Tensor:
        """Mean [d]."""
        return self.features.mean(dim=0)

    @cached_property
    def root(self) -> Tensor:
        """A matrix [min(n, d), d] whose transpose times itself is the covariance."""
        spread = _spread(self.features)
        return torch.linalg.qr(spread, mode="r").R if len(spread) > spread.shape[1] else spread

    @cached_property
    def manifold_radii(self) -> Tensor:
        """Distance [n] of each real image to its third neighbour."""
        return _radii(self.features, MANIFOLD_NEIGHBOURS)

    @cached_property
    def density_radii(self) -> Tensor:
        """Distance [n] of each real image to its fifth neighbour."""
        return _radii(self.features, DENSITY_NEIGHBOURS)

    def kernel_sums(self, draws: Tensor) -> Tensor:
        """What KID needs of draws [s, n] of the real images alone; equal draws are summed once."""
        if self._drawn is None or not torch.equal(self._drawn[0], draws):
            self._drawn = draws, _sums_within(self.features, draws)
        return self._drawn[1]


def frechet_distance(real: FeatureStatistics, generated: Tensor) -> float:
    """Return the FID (Heusel et al. 2017): the distance of two Gaussians, 0 for the same.

    |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr √(Σ₁ Σ₂). With Σ₁ = AᵀA and Σ₂ = BᵀB the last trace is
    the sum of the singular values of ABᵀ, got from the smaller of its two Gram matrices.
    """
    generated = generated.double()
    spread = _spread(generated)
    product = real.root @ spread.T
    product = product if product.shape[0] <= product.shape[1] else product.T
    overlap = torch.linalg.eigvalsh(product @ product.T).clamp_min(0).sqrt().sum()
    means = (real.mean - generated.mean(dim=0)).square().sum()
    return (means + real.root.square().sum() + spread.square().sum() - 2 * overlap).item()


def _spread(features: Tensor) -> Tensor:
    return (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5


def kernel_distance(
    real: FeatureStatistics, generated: Tensor, subsets: int = 100, size: int = 1000
) -> float:
    """Return the KID (Bińkowski et al. 2018): the unbiased MMD² of a cubic kernel.

    The mean over `subsets` draws of `size` images of each kind (of all, where there are
    fewer), with a fixed seed and in torch-fidelity's order. May be a little below 0.
    """
    x, y = generated.double(), real.features
    size = min(size, len(x), len(y))
    if size == len(x) == len(y):
        subsets = 1  # any draw is all of them
    random = np.random.RandomState(2020)
    draws = [(_draw(random, x, size), _draw(random, y, size)) for _ in range(subsets)]
    ours, theirs = (torch.stack(each) for each in zip(*draws, strict=True))
    within = _sums_within(x, ours) + real.kernel_sums(theirs)
    across = _kernel_sums(x, y, ours, theirs)
    return (within / (size * (size - 1)) - 2 * across / size**2).mean().item()


def _draw(random: np.random.RandomState, features: Tensor, size: int) -> Tensor:
    """Which of the features [n, d] are drawn: [n], 1 or 0."""
    drawn = torch.zeros(len(features), dtype=torch.float64)
    drawn[torch.from_numpy(random.choice(len(features), size, replace=False))] = 1
    return drawn.to(features.device)


def _sums_within(x: Tensor, draws: Tensor) -> Tensor:
    """Sum of the kernel over all pairs of different images, in each draw [s, n] of x [n, d]."""
    with_itself = (x.square().sum(dim=1) / x.shape[1] + 1) ** 3
    return _kernel_sums(x, x, draws, draws) - draws @ with_itself


def _kernel_sums(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
    """Sum [s] of the kernel over all pairs of each draw of x and of y.

    Images are in many draws: where it is less work, the kernel of all pairs is computed once.
    """
    in_draws = of_x.sum(dim=1) @ of_y.sum(dim=1)
    if len(x) * len(y) > in_draws:
        pairs = zip(of_x.bool(), of_y.bool(), strict=True)
        return torch.stack([_kernel(x[ours], y[theirs]).sum() for ours, theirs in pairs])
    sums = torch.zeros(len(of_x), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        sums += (of_x[:, rows] @ _kernel(x[rows], y) * of_y).sum(dim=1)
    return sums


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(real: FeatureStatistics, generated: Tensor) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019), both in 0..1.

    The share of generated images inside some real image's ball, and the share of real
    images inside some generated image's; a ball reaches to the third neighbour.
    """
    generated = generated.double()
    precision = _share_inside(generated, real.features, real.manifold_radii)
    radii = _radii(generated, MANIFOLD_NEIGHBOURS)
    return precision, _share_inside(real.features, generated, radii)


def density_coverage(real: FeatureStatistics, generated: Tensor) -> tuple[float, float]:
    """Return density (0 and up, 1 for the real) and coverage (0..1) (Naeem et al. 2020).

    How many real images' balls a generated image lies in, over the neighbours a ball
    holds; and the share of real images with a generated one in their ball.
    """
    radii, nearest, inside = real.density_radii, [], []
    for distances in _distances(generated.double(), real.features):
        nearest.append(distances.amin(dim=0))
        inside.append((distances < radii).sum())
    density = torch.stack(inside).sum().double() / (DENSITY_NEIGHBOURS * len(generated))
    coverage = (torch.stack(nearest).amin(dim=0) < radii).double().mean()
    return density.item(), coverage.item()


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Return the share of `points` that lie in at least one ball."""
    inside = [(distances <= radii).any(dim=1) for distances in _distances(points, centres)]
    return torch.cat(inside).double().mean().item()


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """Return the distance of each row to its `neighbours`-th nearest other row."""
    if len(features) <= neighbours:
        raise TooFew(f"{len(features)} images have no {neighbours} neighbours each")
    among = _distances(features, features)
    nearest = (distances.topk(neighbours + 1, largest=False).values for distances in among)
    return torch.cat([distances[:, -1] for distances in nearest])  # sorted; the first is itself


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield the Euclidean distances [rows, len(y)] of some rows of `x` after the other."""
    return (torch.cdist(rows, y) for rows in x.split(ROWS))


FUNCTIONS: dict[str, Callable[[FeatureStatistics, Tensor], float | tuple[float, ...]]] = {
    "fid": frechet_distance,
    "kid": kernel_distance,
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
}
"""The function of each metric of `METRICS`, from features of real and of generated images."""


def measure(name: str, real: FeatureStatistics, generated: Tensor) -> dict[str, float]:
    """The numbers of one metric, of features [n, d] of generated images.

    A `module:function` gets both and returns one number; it is reported as `function`.
    """
    if name not in FUNCTIONS:
        with user_code_errors(name):
            return {reported([name])[0]: float(resolve(name, {})(real, generated))}
    found = FUNCTIONS[name](real, generated)
    values = found if isinstance(found, tuple) else (found,)
    return dict(zip(reported([name]), values, strict=True))
