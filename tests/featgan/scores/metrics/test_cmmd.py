"""CMMD against values by hand."""

from math import exp

import pytest
import torch

from featgan.scores.metrics.cmmd import clip_discrepancy
from featgan.scores.metrics.statistics import FeatureStatistics


def test_by_hand() -> None:
    real = FeatureStatistics(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    generated = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # squared distances: 2 within real, 4 within generated; 0, 2, 4 and 2 between; sigma is 10
    within = (2 + 2 * exp(-2 / 200)) / 4 + (2 + 2 * exp(-4 / 200)) / 4
    between = (1 + 2 * exp(-2 / 200) + exp(-4 / 200)) / 4
    expected = 1000 * (within - 2 * between)
    assert clip_discrepancy(real, generated) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(4.975, abs=0.001)


def test_the_same_images_have_no_discrepancy() -> None:
    features = torch.nn.functional.normalize(torch.randn(30, 8))
    assert clip_discrepancy(FeatureStatistics(features), features) == pytest.approx(0, abs=1e-9)
