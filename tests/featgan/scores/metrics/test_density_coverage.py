from __future__ import annotations

import pytest
from synthetic_features import features, line

from featgan.scores.metrics import density_coverage as module
from featgan.scores.metrics.density_coverage import density_coverage
from featgan.scores.metrics.statistics import FeatureStatistics


def test_density_and_coverage_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENSITY_NEIGHBOURS", 1)
    # Real balls: 0±1, 1±1, 10±9. 0.5 lies in two; 2.5 in one; 30 in none. 10's holds 2.5.
    real = FeatureStatistics(line(0, 1, 10))
    assert density_coverage(real, line(0.5, 2.5, 30)) == pytest.approx((3 / 3, 1.0))
    assert density_coverage(real, line(0.5, 0.5, 0.5)) == pytest.approx((2.0, 2 / 3))


def test_the_real_distribution_has_density_and_coverage_one() -> None:
    real = FeatureStatistics(features(600, 8, 1))
    density, coverage = density_coverage(real, features(600, 8, 2))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9
