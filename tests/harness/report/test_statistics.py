"""Intervals and probabilities, against numbers worked out by hand."""

import numpy as np
import pytest

from harness.report import statistics


def test_probability_of_improvement_counts_ties_as_half():
    # 2 > 1, 2 = 2, 2 < 3; 4 > 1, 4 > 2, 4 > 3: (4 + 0.5) / 6.
    assert statistics.probability_of_improvement([2, 4], [1, 2, 3]) == 0.75
    assert statistics.probability_of_improvement([1], [2]) == 0


def test_bootstrap_of_three_values_spans_their_range():
    # Three equal draws come once in 27, more often than 2.5 %: the interval ends there.
    assert statistics.bootstrap_interval([1.0, 2.0, 6.0]) == (1.0, 6.0)


def test_bootstrap_of_many_values_is_the_normal_interval():
    values = [float(v) for v in range(101)]  # mean 50, deviation 29.15, error 2.90
    low, high = statistics.bootstrap_interval(values)
    assert low == pytest.approx(50 - 1.96 * 2.90, abs=0.3)
    assert high == pytest.approx(50 + 1.96 * 2.90, abs=0.3)


def test_bootstrap_is_a_function_of_its_arguments():
    values = [0.3, 0.1, 0.7, 0.2, 0.9]
    assert statistics.bootstrap_interval(values) == statistics.bootstrap_interval(values)


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


def test_mean_and_deviation_of_few():
    assert np.isnan([statistics.mean([]), statistics.deviation([1.0])]).all()
    assert np.isnan(statistics.mean([1.0, np.nan]))
    assert statistics.deviation([1.0, 3.0]) == pytest.approx(2**0.5)
