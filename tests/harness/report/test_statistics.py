"""Intervals, probabilities and p-values, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from harness.report import statistics
from harness.report.statistics import compare, improvement, sequential, sign_flips, step_down


def test_probability_of_improvement_counts_ties_as_half():
    # 2 > 1, 2 = 2, 2 < 3; 4 > 1, 4 > 2, 4 > 3: (4 + 0.5) / 6.
    assert improvement([2, 4], [1, 2, 3])[0] == 0.75
    assert improvement([1], [2])[0] == 0


def test_the_interval_of_a_probability_is_newcombes():
    # 10 and 10 values, 0.75: Newcombe's method 5 solves (0.75 - p)^2 = 1.96^2 V(p) with
    # V = p (1 - p) (1 + 9 ((1 - p) / (2 - p) + p / (1 + p))) / 100.
    a, b = np.repeat([1.0, 0.0], [15, 5]), np.zeros(20) + 0.5
    found, low, high = improvement(a, b)
    assert found == 0.75
    for p in (low, high):
        variance = p * (1 - p) * (1 + 19 * ((1 - p) / (2 - p) + p / (1 + p))) / 400
        assert (0.75 - p) ** 2 == pytest.approx(1.96**2 * variance, rel=0.01)
    assert 0 < low < 0.75 < high < 1


def test_the_interval_is_students():
    # Mean 3, deviation sqrt(7); t(2, 0.975) = 4.303, so half of it is 4.303 sqrt(7 / 3).
    found = compare([1.0, 2.0, 6.0], [0.0, 0.0, 0.0])
    assert (found.low, found.high) == pytest.approx((3 - 6.572, 3 + 6.572), abs=0.001)
    assert found.sd == pytest.approx(7**0.5)


def test_p_is_the_share_of_sign_flips_as_far_from_zero():
    # Sums of +-1 +-2 +-4: 7, 5, 3, 1 and their opposites.
    assert compare([1.0, 2.0, 4.0], [0.0] * 3).p == 2 / 8
    assert compare([1.0, 2.0, -4.0], [0.0] * 3).p == 1
    assert compare([-1.0, 2.0, 4.0], [0.0] * 3).p == 4 / 8
    # All seeds agree: 2 / 2^n. Ties count as reached.
    assert compare([0.1] * 6, [0.0] * 6).p == 2 / 64
    assert compare([0.0] * 6, [0.0] * 6).p == 1


def test_twenty_pairs_are_exact_and_more_are_drawn():
    assert compare(np.arange(1.0, 21), np.zeros(20)).p == 2 / 2**20
    assert compare(np.arange(1.0, 31), np.zeros(30)).p <= 2 / 2**19


def test_comparison_pairs_by_position():
    # Unpaired these overlap; paired, a is above b by 1 each time.
    found = compare([2.0, 4.0, 6.0], [1.0, 3.0, 5.0])
    assert (found.pairs, found.mean, found.low, found.high) == (3, 1.0, 1.0, 1.0)
    assert compare([1.0, 1.0, 1.0]) == found
    shifted = compare(pd.Series([2.0, 4.0]), pd.Series([1.0, 3.0], index=[5, 6]))
    assert (shifted.pairs, shifted.mean) == (2, 1.0)


def test_one_pair_has_no_interval_and_none_no_comparison():
    found = compare([2.0], [1.0])
    assert (found.mean, found.p) == (1.0, 1.0)
    assert np.isnan([found.low, found.high, found.sd]).all()
    with pytest.raises(ValueError, match="pairs of 2 and 1"):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="missing"):
        compare([1.0, np.nan], [1.0, 2.0])


def test_differences_with_one_long_tail_look_skewed():
    assert compare([0.0, 0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 5.0], np.zeros(8)).skewed
    assert not compare([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], np.zeros(7)).skewed


def test_flips_are_a_group_and_all_of_few_seeds():
    flips = sign_flips(8, 1 << 4)
    assert flips[0].tolist() == [1] * 8
    known = {tuple(row) for row in flips}
    assert {tuple(a * b) for a in flips for b in flips} == known
    assert len({tuple(row) for row in flips[:, :5]}) == 16
    assert (sign_flips(12, 1 << 4)[:, :8] == flips).all()


def test_step_down_corrects_claims_of_the_same_seeds_together():
    rows = np.array([[1.0, 2, 4, 3, 2, 3], [1.1, 2, 4, 3, 2, 3], [1.0, -2, 4, -3, 2, -3]])
    # The first two are clearest in the same 2 of 64 flips; Holm's would be 2 * 2 / 64.
    assert step_down(rows[:2]).tolist() == [2 / 64] * 2
    # The third is as clear as the first in 2 other flips, and less clear than the second.
    assert step_down(rows).tolist() == [4 / 64, 2 / 64, compare(rows[2], np.zeros(6)).p]


def test_step_down_corrects_less_than_holm():
    rng, lower = np.random.default_rng(0), []
    for _ in range(50):
        rows = rng.normal(0.4, 1, (5, 9))
        single = np.array([compare(row, np.zeros(9)).p for row in rows])
        corrected = step_down(rows)
        assert (corrected >= single).all()
        order = single.argsort()
        holm = np.maximum.accumulate(single[order] * np.arange(5, 0, -1)).clip(max=1)
        lower.append((corrected[order] <= holm).mean())
    assert np.mean(lower) > 0.9


def test_two_differences_are_never_skewed():
    rng = np.random.default_rng(6)
    assert not any(compare(*rng.normal(size=(2, 2))).skewed for _ in range(100))


def test_a_missing_pair_leaves_the_other_claims_their_power():
    # Two seeds of the second claim, which differ hardly: its t would be above every other's.
    rows = np.array([[1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8], [1.0, 1.001, *[np.nan] * 5]])
    first, second = step_down(rows)
    assert first == 2 / 2**7
    assert second >= 0.5


def test_a_sequence_decides_at_the_first_look_that_can():
    rng = np.random.default_rng(3)
    rows = np.vstack([np.linspace(1, 1.5, 12), rng.normal(0, 1, 12)])
    # 0.05 * 7 / 12 of the flips is the first share of at least 2 / 2^7, if all seeds agree.
    assert sequential(rows, 12).tolist() == [7, 0]


def test_later_seeds_change_no_decision(monkeypatch):
    monkeypatch.setattr(statistics, "FLIPS", 1 << 9)
    rng = np.random.default_rng(4)
    for _ in range(30):
        rows = rng.normal(rng.uniform(0, 2, (4, 1)), 1, (4, 12))
        decided = sequential(rows, 12)
        for seeds in range(1, 12):
            expected = np.where(decided <= seeds, decided, 0)
            assert sequential(rows[:, :seeds], 12).tolist() == expected.tolist()


def test_of_all_flips_of_the_data_a_twentieth_is_decided(monkeypatch):
    # Without an effect each flip is as likely as the data, so this is the level, exactly.
    monkeypatch.setattr(statistics, "FLIPS", 1 << 7)
    for claims in (1, 3):
        rows = np.random.default_rng(claims).exponential(size=(claims, 12))
        decided = [sequential(rows * flip, 12).any() for flip in sign_flips(12, 1 << 7)]
        assert sum(decided) == int(0.05 * 2**7)
