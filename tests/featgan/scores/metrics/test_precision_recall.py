from __future__ import annotations

import pytest
from synthetic_features import SIZES, features, line
from torch_fidelity.metric_prc import prc_features_to_metric

from featgan.scores.metrics import precision_recall as module
from featgan.scores.metrics.precision_recall import precision_recall
from featgan.scores.metrics.statistics import FeatureStatistics


@pytest.mark.parametrize(("n", "real_n", "d"), SIZES)
def test_precision_and_recall_equal_torch_fidelity(n: int, real_n: int, d: int) -> None:
    generated, real = features(n, d, 1, 0.2), features(real_n, d, 2)
    theirs = prc_features_to_metric(
        generated.double(), real.double(), prc_neighborhood=3, verbose=False
    )
    ours = precision_recall(FeatureStatistics(real), generated)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)
    assert 0 < ours[0] < 1


def test_precision_and_recall_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANIFOLD_NEIGHBOURS", 1)
    # Real balls: 0±1, 1±1, 10±9, so 25 alone is outside. Generated balls: 0.5±1.5, 2±1.5, 25±23.
    real, generated = FeatureStatistics(line(0, 1, 10)), line(0.5, 2, 25)
    assert precision_recall(real, generated) == pytest.approx((2 / 3, 1.0))
    assert precision_recall(real, line(-50, -49, -48)) == (0.0, 0.0)


def test_too_few_images_for_neighbours_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 images have no 3 neighbours"):
        precision_recall(FeatureStatistics(line(1, 2, 3)), line(1, 2, 3, 4))
