"""Intervals and probabilities, against numbers worked out by hand."""

import pytest

from harness.report import statistics


def test_probability_of_improvement_counts_ties_as_half():
    # 2 > 1, 2 = 2, 2 < 3; 4 > 1, 4 > 2, 4 > 3: (4 + 0.5) / 6.
    assert statistics.probability_of_improvement([2, 4], [1, 2, 3]) == 0.75
    assert statistics.probability_of_improvement([1], [2]) == 0


def test_the_interval_is_students():
    # Mean 3, deviation sqrt(7); t(2, 0.975) = 4.303, so half of it is 4.303 sqrt(7 / 3).
    found = statistics.compare([1.0, 2.0, 6.0], [0.0, 0.0, 0.0])
    assert (found.low, found.high) == pytest.approx((3 - 6.572, 3 + 6.572), abs=0.001)


def test_comparison_pairs_by_position():
    # Unpaired these overlap; paired, a is above b by 1 each time.
    found = statistics.compare([2.0, 4.0, 6.0], [1.0, 3.0, 5.0])
    assert (found.pairs, found.mean, found.low, found.high) == (3, 1.0, 1.0, 1.0)
    assert found.probability == pytest.approx(6 / 9)
    assert found.clear


def test_a_difference_of_both_signs_or_of_one_seed_is_not_clear():
    assert not statistics.compare([2.0, 1.0], [1.0, 3.0]).clear
    assert not statistics.compare([2.0], [1.0]).clear
    with pytest.raises(ValueError, match="pairs of 2 and 1"):
        statistics.compare([1.0, 2.0], [1.0])
