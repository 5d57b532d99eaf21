from __future__ import annotations

import pytest
import torch
from synthetic_features import SIZES, features, line
from torch_fidelity.metric_kid import kid_features_to_metric

from featgan.scores.metrics import kid
from featgan.scores.metrics.kid import kernel_distance
from featgan.scores.metrics.statistics import FeatureStatistics


@pytest.mark.parametrize("part", [0.9, 0.1])
@pytest.mark.parametrize(("n", "real_n", "d"), [*SIZES, (2100, 50, 3)])
def test_kid_equals_torch_fidelity(
    n: int, real_n: int, d: int, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated, real = features(n, d, 1, 0.1), features(real_n, d, 2)
    size = int(min(n, real_n) * part)
    theirs = kid_features_to_metric(
        generated.double(), real.double(), kid_subsets=7, kid_subset_size=size, verbose=False
    )
    monkeypatch.setattr(kid, "KERNEL_SUBSETS", 7)
    monkeypatch.setattr(kid, "KERNEL_SUBSET_SIZE", size)
    ours = kernel_distance(FeatureStatistics(real), generated)
    assert ours == pytest.approx(tuple(theirs.values()), rel=1e-9)


def test_kid_with_cached_real_draws_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "KERNEL_SUBSET_SIZE", 40)
    real, some, others = features(90, 9, 0), features(80, 9, 1), features(60, 9, 2)
    kept = FeatureStatistics(real)
    for generated in (some, some + 1, others, some):
        alone = kernel_distance(FeatureStatistics(real), generated)
        assert kernel_distance(kept, generated) == alone


def test_kid_by_hand() -> None:
    # k(x, y) = (xy + 1)³: k(0, 1) = 1 twice; k(1, 2) = 27 twice; across: 1, 1, 8, 27.
    real, generated = FeatureStatistics(line(0, 1)), line(1, 2)
    assert kernel_distance(real, generated) == (pytest.approx(1 + 27 - 2 * 37 / 4), 0)


def test_kid_of_whole_sets_needs_one_draw() -> None:
    generated, real = features(60, 9, 1), FeatureStatistics(features(60, 9, 2))
    shuffled = kernel_distance(real, generated[torch.randperm(60)])
    assert kernel_distance(real, generated) == (pytest.approx(shuffled[0], rel=1e-9), 0)
