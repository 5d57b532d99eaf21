"""AuthPct against values by hand."""

import torch

from featgan.scores.metrics.authenticity import authenticity
from featgan.scores.metrics.statistics import FeatureStatistics


def test_by_hand() -> None:
    # the training images at 0, 3 and 4 have another one at a distance of 3, 1 and 1
    training = FeatureStatistics(torch.tensor([[0.0], [3.0], [4.0]]))
    assert authenticity(training, torch.tensor([[-4.0]])) == 100
    assert authenticity(training, torch.tensor([[-2.0]])) == 0
    # 2.5 and 4.5 are nearer to theirs than 1, and 5 as near; 6 and -4 are further
    generated = torch.tensor([[2.5], [4.5], [6.0], [5.0], [-4.0]])
    assert authenticity(training, generated) == 40


def test_copies_are_not_authentic() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert authenticity(FeatureStatistics(features), features[:20]) == 0
