"""Values by which images are selected, against closed forms and hand-computed cases."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from featgan.errors import UserError
from featgan.features.image_values import HELD_OUT, highest
from featgan.features.selection import FEATURE_VALUES, values_by_label
from featgan.features.settings import SelectSettings

SELECT = SelectSettings(by="gaussian")


def of_line(by, points, **settings):
    return FEATURE_VALUES[by](np.array(points, float)[:, None], SelectSettings(by=by, **settings))


@pytest.fixture(scope="module")
def mixture():
    """Two labels of 150 images each around their own mean in 8 dimensions, and 10 outliers each."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 160)
    features = random.normal(size=(320, 8)) * np.linspace(1, 3, 8) + 40 * labels[:, None]
    outliers = np.arange(320) % 160 < 10
    features[outliers] += 15 * random.choice([-1, 1], (20, 8))
    return features.astype(np.float32), labels, outliers


@pytest.mark.parametrize("by", ["gaussian", "ppca", "neighbour"])
def test_selection_by_density_leaves_out_the_outliers(mixture, by):
    features, labels, outliers = mixture
    kept = highest(values_by_label(features, labels, SelectSettings(by=by)), labels, 0.9)
    assert not kept[outliers].any()
    assert np.bincount(labels[kept]).tolist() == [144, 144]
    at_random = highest(np.random.default_rng(0).random(320), labels, 0.9)
    assert at_random.sum() == kept.sum()
    assert at_random[outliers].mean() > 0.7


def test_gaussian_is_the_log_likelihood_of_mean_and_covariance(mixture):
    points = mixture[0][:160].astype(np.float64)
    covariance = np.cov(points.T, bias=True) + 1e-5 * np.eye(8)
    expected = multivariate_normal(points.mean(axis=0), covariance).logpdf(points)
    assert FEATURE_VALUES["gaussian"](points, SELECT) == pytest.approx(expected)


def test_ppca_is_a_gaussian_with_the_noise_of_the_rest():
    points = np.random.default_rng(1).normal(size=(400, 4)) * [10, 5, 1, 0.5]
    variances, directions = np.linalg.eigh(np.cov(points.T))
    assert variances[-2:].sum() / variances.sum() > 0.95 > variances[-1] / variances.sum()
    variances[:-2] = variances[:-2].mean()  # Tipping and Bishop 1999, equation 8
    model = multivariate_normal(points.mean(axis=0), directions * variances @ directions.T)
    assert FEATURE_VALUES["ppca"](points, SELECT) == pytest.approx(model.logpdf(points))


@pytest.mark.parametrize("n", [60, 8])
def test_densities_equal_scikit_learns_in_any_dimension(n):
    points = np.random.default_rng(2).normal(size=(n, 20)) * np.linspace(1, 5, 20)
    mixture = GaussianMixture(reg_covar=1e-5).fit(points)
    assert FEATURE_VALUES["gaussian"](points, SELECT) == pytest.approx(
        mixture.score_samples(points), rel=1e-6
    )
    model = PCA(0.95, svd_solver="full").fit(points)
    assert FEATURE_VALUES["ppca"](points, SELECT) == pytest.approx(model.score_samples(points))


def test_the_fifth_neighbour_by_hand():
    assert of_line("neighbour", [0, 1, 2, 3, 4, 5, 50]).tolist() == [-5, -4, -3, -3, -4, -5, -49]


def test_as_many_images_of_each_cluster_are_kept():
    points = np.repeat([0.0, 100.0, 300.0], [60, 30, 10])
    places = of_line("cluster", points, clusters=3)
    assert sorted(places[-10:]) == list(range(-9, 1))
    kept = highest(places, np.zeros(100), 0.3)
    assert [kept[points == centre].sum() for centre in (0, 100, 300)] == [10, 10, 10]
    other = of_line("cluster", points, clusters=3, seed=1)
    assert not np.array_equal(places, other)


def test_the_core_set_takes_the_furthest_image_next():
    points = np.array([0, 1, 10, 6, 20])
    orders = [points[np.argsort(-of_line("core_set", points, seed=s))].tolist() for s in (0, 1)]
    assert orders == [[20, 0, 10, 6, 1], [10, 0, 20, 6, 1]]  # from a random first image


def test_a_label_of_too_few_images_is_refused(mixture):
    features, labels, _ = mixture
    labels = np.append(labels[:-3], [2] * 3)
    with pytest.raises(UserError, match=r"select\.by: ppca compares .* only 3; it takes 6 or more"):
        values_by_label(features, labels, SelectSettings(by="ppca"))


def test_ppca_of_images_without_noise_is_refused():
    points = np.random.default_rng(0).normal(size=(6, 50))
    with pytest.raises(UserError, match=r"select\.by: ppca finds no noise in the 6 images"):
        FEATURE_VALUES["ppca"](points, SELECT)


def test_held_out_images_change_no_others_value(mixture):
    features, labels, _ = mixture
    labels = np.where(np.arange(320) % 7, labels, HELD_OUT)
    of_others, others = SelectSettings(by="gaussian"), labels != HELD_OUT
    found = values_by_label(features, labels, of_others)
    assert not found[~others].any()
    assert (found[others] == values_by_label(features[others], labels[others], of_others)).all()


def test_the_highest_share_of_each_label_by_hand():
    values, labels = np.array([1, 5, 5, 5, 9, 2, 7]), np.array([0, 0, 0, 0, 1, 1, -1])
    assert highest(values, labels, 0.5).tolist() == [False, True, True, False, True, False, True]
    assert highest(values, np.zeros(7), 0.3).tolist() == [False] * 4 + [True, False, True]
