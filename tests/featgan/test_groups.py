from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from featgan.errors import UserError
from featgan.groups import FeatureGroups, Group, GroupSettings


def fit(counts: list[int] | np.ndarray, **options: object) -> FeatureGroups:
    return FeatureGroups.fit(np.asarray(counts), GroupSettings(**options))


def spread(counts: np.ndarray, numbers: np.ndarray) -> float:
    """Sum of squared distances to the means of the groups."""
    return sum(float(((part - part.mean()) ** 2).sum()) for part in _parts(counts, numbers))


def _parts(counts: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    return [counts[numbers == number] for number in np.unique(numbers)]


def test_three_clear_groups() -> None:
    groups = fit([20, 1, 10, 2, 11, 11, 3])

    assert groups.groups == (
        Group(1, 2.0, 3, 1, 3),
        Group(2, 32 / 3, 3, 10, 11),
        Group(3, 20.0, 1, 20, 20),
    )
    assert groups.histogram == {1: 1, 2: 1, 3: 1, 10: 1, 11: 2, 20: 1}
    assert groups.assign(np.array([20, 1, 10, 2, 11, 11, 3])).tolist() == [3, 1, 2, 1, 2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=14), st.integers(1, 4))
def test_kmeans_is_the_best_of_all_splits(counts: list[int], k: int) -> None:
    values = np.unique(counts)
    if len(values) < k:
        return
    found = np.asarray(counts)
    best = min(
        spread(found, np.searchsorted(cuts, found, side="right"))
        for cuts in itertools.combinations(values[1:], k - 1)
    )

    assert spread(found, fit(found, k=k).assign(found)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_kmeans_is_never_worse_than_scikit_learns(k: int) -> None:
    counts = np.random.default_rng(k).normal(1100, 120, 5000).astype(int)
    values, weights = np.unique(counts, return_counts=True)
    peer = KMeans(k, n_init=20, random_state=0).fit(values[:, None], sample_weight=weights)
    groups = fit(counts, k=k)

    ours = spread(counts, groups.assign(counts))
    assert ours <= peer.inertia_ * (1 + 1e-9)
    assert ours == pytest.approx(peer.inertia_, rel=1e-3)
    centroids = [group.centroid for group in groups.groups]
    np.testing.assert_allclose(centroids, np.sort(peer.cluster_centers_[:, 0]), atol=8)


def test_order_and_repetition_of_images_do_not_matter() -> None:
    counts = np.random.default_rng(0).integers(900, 1300, 500)

    assert fit(counts) == fit(counts[::-1])
    assert [g.centroid for g in fit(np.tile(counts, 7)).groups] == pytest.approx(
        [g.centroid for g in fit(counts).groups]
    )


def test_quantile_groups_are_equal_where_ties_allow() -> None:
    assert [g.size for g in fit(np.arange(9), method="quantile").groups] == [3, 3, 3]
    # 6 images with one count cannot be parted: of 10, the nearest to halves are 2 and 8, or 8 and 2
    assert [g.size for g in fit([1, 2] + [5] * 6 + [7, 8], method="quantile", k=2).groups] == [2, 8]
    # a crowd at an end leaves each later group one count
    assert [g.size for g in fit([0] * 98 + [1, 2], method="quantile").groups] == [98, 1, 1]


def test_balanced_groups_stay_within_their_bounds() -> None:
    counts = np.random.default_rng(1).normal(1100, 120, 3000).astype(int)
    free = [g.size for g in fit(counts).groups]
    sizes = [g.size for g in fit(counts, method="balanced", tolerance=0.05).groups]

    assert max(free) > 1.2 * min(free)
    assert all(950 <= size <= 1050 for size in sizes)
    assert sum(sizes) == 3000


def test_balanced_takes_the_best_split_of_those_allowed() -> None:
    counts = np.array([0, 1, 2, 3, 4, 100])  # k-means would cut before 100; sizes allow 4 at most

    assert [g.size for g in fit(counts, method="balanced", k=2, tolerance=0.4).groups] == [4, 2]


def test_balanced_says_when_ties_forbid_it() -> None:
    with pytest.raises(UserError, match=r"groups\.tolerance"):
        fit([1, 5, 5, 5, 5, 5, 5, 9], method="balanced", k=2)


def test_too_few_different_counts() -> None:
    with pytest.raises(UserError, match=r"3 different feature counts, but the 4 images have 2"):
        fit([7, 7, 8, 8])


def test_boundaries_count_who_would_cross() -> None:
    groups = fit([10, 11, 12, 20, 21, 30], k=2)  # 10..12 | 20..30

    assert [(g.lowest, g.highest) for g in groups.groups] == [(10, 12), (20, 30)]
    assert groups.near_boundaries(7) == [0]
    assert groups.near_boundaries(8) == [2]  # 12 and 20
    assert groups.near_boundaries(9) == [4]  # 11 and 21 too


def test_json_round_trip() -> None:
    groups = fit([1, 2, 10, 11, 20], k=2)

    assert FeatureGroups.from_json(groups.to_json()) == groups


def test_ten_million_counts_take_less_than_a_second() -> None:
    counts = np.random.default_rng(0).normal(1100, 150, 10_000_000).astype(np.int16)
    start = time.process_time()
    groups = FeatureGroups.fit(counts, GroupSettings())
    numbers = groups.assign(counts)

    assert time.process_time() - start < 1
    assert np.bincount(numbers)[1:].tolist() == [group.size for group in groups.groups]
