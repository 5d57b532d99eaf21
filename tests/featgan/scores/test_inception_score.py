from __future__ import annotations

import math

import pytest
import torch
from torch_fidelity import metric_isc

from featgan.scores.inception_score import Diverged, inception_score


def test_one_hot_logits_score_the_number_of_classes() -> None:
    logits = torch.eye(4).repeat(25, 1) * 1e4
    mean, deviation = inception_score(logits, splits=1)
    assert mean == pytest.approx(4.0, rel=1e-12)
    assert deviation == 0.0


def test_equal_logits_score_one() -> None:
    assert inception_score(torch.full((20, 5), 3.0), splits=2) == pytest.approx((1.0, 0.0))


def test_a_score_computed_by_hand() -> None:
    # Two images, p = (3/4, 1/4) and (1/4, 3/4); the mean is (1/2, 1/2).
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(logits, splits=1)[0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (103, 10), (50, 1), (64, 7)])
def test_equals_torch_fidelity_on_the_same_logits(n: int, splits: int) -> None:
    logits = torch.randn(n, 13, generator=torch.Generator().manual_seed(n)) * 4
    theirs = metric_isc.isc_features_to_metric(logits, splits)
    assert inception_score(logits, splits) == pytest.approx(tuple(theirs.values()), rel=1e-9)


def test_images_sorted_by_class_score_as_if_shuffled() -> None:
    labels = torch.arange(1000) // 100
    logits = 50.0 * torch.nn.functional.one_hot(labels, 10)
    assert inception_score(logits, splits=10)[0] > 9


def test_a_class_of_probability_zero_is_allowed() -> None:
    logits = torch.tensor([[0.0, 1.0, -2000.0], [1.0, 0.0, -2000.0]])
    without = inception_score(logits[:, :2], splits=1)
    assert inception_score(logits, splits=1) == pytest.approx(without, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_divergence(bad: float) -> None:
    logits = torch.zeros(40, 3)
    logits[17, 1] = bad
    with pytest.raises(Diverged, match="not finite"):
        inception_score(logits, splits=4)
