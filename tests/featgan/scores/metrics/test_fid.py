from __future__ import annotations

import pytest
from synthetic_features import SIZES, features, line
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.statistics import FeatureStatistics


@pytest.mark.parametrize(("n", "real_n", "d"), SIZES)
def test_fid_equals_torch_fidelity(n: int, real_n: int, d: int) -> None:
    generated, real = features(n, d, 1, 0.1), features(real_n, d, 2)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(generated.double()),
        fid_features_to_statistics(real.double()),
        verbose=False,
    )["frechet_inception_distance"]
    ours = frechet_distance(FeatureStatistics(real), generated)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_fid_of_two_lines_by_hand() -> None:
    # Means 1 and 4, variances 2 and 8: 3² + 2 + 8 - 2 √16.
    real, generated = FeatureStatistics(line(0, 2)), line(2, 6)
    assert frechet_distance(real, generated) == pytest.approx(9 + 2 + 8 - 8, rel=1e-12)


def test_fid_of_the_same_images_is_zero() -> None:
    same = features(200, 30, 0)
    assert frechet_distance(FeatureStatistics(same), same) == pytest.approx(0, abs=1e-6)
