from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.cluster import KMeans

from featgan.errors import UserError
from featgan.features.groups import FeatureGroups, Group
from featgan.features.settings import GroupSettings


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


REAL = st.floats(-1e100, 1e100, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(REAL, min_size=1, max_size=12, unique=True),
        st.lists(st.floats(0, 1e-150), min_size=1, max_size=12, unique=True),
        st.lists(st.sampled_from([0.1, 0.25, 3.5, 3.75, -2.0]), min_size=1, max_size=12),
    ),
    st.integers(1, 4),
)
def test_groups_of_real_values_are_the_best_split(values: list[float], k: int) -> None:
    found = np.asarray(values)
    different = np.unique(found)
    if len(different) < k:
        return
    scale = np.ptp(found) or 1.0
    cuts = [
        np.searchsorted(c, found, side="right")
        for c in itertools.combinations(different[1:], k - 1)
    ]
    best = min(spread(found / scale, cut) for cut in cuts)
    groups = fit(found, k=k)
    numbers = groups.assign(found)

    assert spread(found / scale, numbers) == pytest.approx(best, abs=1e-9)
    for group in groups.groups:
        part = found[numbers == group.number]
        assert (group.size, group.lowest, group.highest) == (len(part), part.min(), part.max())
        assert group.centroid == pytest.approx(part.mean(), rel=1e-9)
    assert sum(groups.histogram.values()) == len(values)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["normal", "exponential", "pareto", "cauchy", "uniform"]),
    st.sampled_from(["kmeans", "quantile", "balanced"]),
    st.integers(1, 6),
    st.integers(0, 99),
)
def test_binned_values_are_assigned_as_they_were_fitted(
    kind: str, method: str, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    sizes = {"pareto": (1.5, 6000), "normal": (0, 1, 6000), "uniform": (0, 1, 6000)}
    values = getattr(random, "standard_cauchy" if kind == "cauchy" else kind)(
        *sizes.get(kind, (1, 6000) if kind == "exponential" else (6000,))
    )
    groups = fit(values, method=method, k=k)
    numbers = groups.assign(values)

    assert [g.size for g in groups.groups] == np.bincount(numbers, minlength=k + 1)[1:].tolist()
    assert [g.lowest for g in groups.groups] == [values[numbers == n + 1].min() for n in range(k)]
    assert [g.highest for g in groups.groups] == [values[numbers == n + 1].max() for n in range(k)]
    assert len(groups.histogram) <= 4096
    assert sum(groups.histogram.values()) == 6000
    if method != "kmeans":  # for all tails a bin holds few images
        assert max(g.size for g in groups.groups) <= 6000 / k * 1.1 + 6


def test_binned_kmeans_is_next_to_the_best() -> None:
    values = np.random.default_rng(3).normal(7, 2, 20_000)
    peer = KMeans(3, n_init=3, random_state=0).fit(values[:, None])

    assert spread(values, fit(values).assign(values)) <= peer.inertia_ * (1 + 1e-5)


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
    # the first cut nearest to a third would be after 7 of 13: 7, 3 and 3
    counts = np.repeat(np.arange(5), [2, 5, 3, 1, 2])
    assert [g.size for g in fit(counts, method="quantile").groups] == [2, 5, 6]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.integers(1, 5))
def test_quantile_groups_have_the_least_squared_sizes(weights: list[int], k: int) -> None:
    below = np.cumsum([0, *weights])
    if len(weights) < k:
        return
    splits = (
        [0, *ends, len(weights)] for ends in itertools.combinations(range(1, len(weights)), k - 1)
    )
    best = min((np.diff(below[split]) ** 2).sum() for split in splits)
    groups = fit(np.repeat(np.arange(len(weights)), weights), method="quantile", k=k).groups

    assert sum(group.size**2 for group in groups) == best


def test_many_values_are_cut_into_equal_groups() -> None:
    values = np.random.default_rng(0).pareto(0.5, 100_000)
    values[:30_000] = 0.0  # a tie, smaller than a third
    groups = fit(values, method="quantile")

    assert [g.size for g in groups.groups] == [33_333, 33_333, 33_334]
    assert len(groups.histogram) <= 4096


def test_balanced_groups_stay_within_their_bounds() -> None:
    counts = np.random.default_rng(1).normal(1100, 120, 3000).astype(int)
    free = [g.size for g in fit(counts).groups]
    sizes = [g.size for g in fit(counts, method="balanced", tolerance=0.05).groups]

    assert max(free) > 1.2 * min(free)
    assert all(950 <= size <= 1050 for size in sizes)
    assert sum(sizes) == 3000


def test_balanced_bounds_are_those_of_decimal_numbers() -> None:
    # 395 / 3 · 1.2 is 158, but as floats a little less
    counts = np.repeat([0, 1, 9], [158, 118, 119])
    groups = fit(counts, method="balanced", tolerance=0.2).groups

    assert [g.size for g in groups] == [158, 118, 119]


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
    assert groups.near_boundaries(0) == [0]
    assert groups.near_boundaries(1) == [1]  # 12 becomes 13, which is above 12
    assert groups.near_boundaries(5) == [3]  # 10 and 11 too, but 20 becomes 15
    assert groups.near_boundaries(7) == [3]
    assert groups.near_boundaries(8) == [4]  # 20 becomes 12
    assert groups.near_boundaries(9) == [5]  # 21 too


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=4, max_size=30), st.integers(0, 20))
def test_images_near_a_boundary_are_those_that_assign_moves(counts: list[int], by: int) -> None:
    found = np.asarray(counts)
    if len(np.unique(found)) < 2:
        return
    groups = fit(found, k=2)
    here = groups.assign(found)
    moved = (groups.assign(found - by) != here) | (groups.assign(found + by) != here)

    assert groups.near_boundaries(by) == [moved.sum()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "edge_densty"}, "none of feature_count, jpeg_size.*did you mean 'edge_density'"),
        ({"by": "my module:f"}, "nor module:function"),
        ({"by": "table", "column": "x"}, "needs `table`"),
    ],
)
def test_group_settings_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GroupSettings(**options)
    GroupSettings(by="my.module:function")


@pytest.mark.parametrize("kind", [np.int16, np.float64])
def test_ten_million_values_are_grouped(kind: type) -> None:
    values = np.random.default_rng(0).normal(1100, 150, 10_000_000).astype(kind)
    groups = FeatureGroups.fit(values, GroupSettings())
    numbers = groups.assign(values)

    assert np.bincount(numbers)[1:].tolist() == [group.size for group in groups.groups]


def test_a_user_defined_grouping(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_groups.py").write_text(
        "def first_alone(values, weights, settings):\n    return range(1, settings.k)\n\n"
        "def lost(values, weights, settings):\n    return [0]\n"
    )
    counts = np.array([7, 3, 9, 3, 8])
    groups = FeatureGroups.fit(counts, GroupSettings(method="own_groups:first_alone", k=2))
    assert groups.assign(counts).tolist() == [2, 1, 2, 1, 2]
    with pytest.raises(UserError, match=r"own_groups:lost returned the ends \[0\] for 2 groups"):
        FeatureGroups.fit(counts, GroupSettings(method="own_groups:lost", k=2))


@pytest.mark.parametrize("far", [[1e12], [-1e12], [-1e15, 1e12]])
def test_a_far_value_takes_no_digits_from_the_others(far: list[float]) -> None:
    values = np.array([*range(100), *range(300, 400), *far], float)
    groups = FeatureGroups.fit(values, GroupSettings(k=2 + len(far))).groups
    assert sorted(group.size for group in groups) == [*[1] * len(far), 100, 100]
