"""Values by which images are selected: density, clusters and core-set in a space of features.

Each function takes the features float64 [n, d] of the images of one label, or of all where there
are no labels, and returns [n]; higher is denser, or chosen earlier. Random choices follow
`settings.seed`.
"""

from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from featgan.errors import UserError
from featgan.features.image_values import HELD_OUT
from featgan.features.settings import ValueSettings

NEIGHBOUR = 5
"""The neighbour whose distance measures density (DeVries et al. 2020)."""


def gaussian(features: np.ndarray, settings: ValueSettings) -> np.ndarray:
    """Return the log-likelihood [n] under a Gaussian fitted to the images (DeVries et al. 2020).

    As in the authors' code, 1e-5 is added to the variances.
    """
    values, variances = _principal_components(features)
    return _log_likelihood(values, variances + 1e-5, 1e-5, features.shape[1])


def ppca(features: np.ndarray, settings: ValueSettings) -> np.ndarray:
    """Return the log-likelihood [n] under probabilistic PCA with 95% of the variance.

    DeVries et al. 2020; Tipping and Bishop 1999. As in scikit-learn, the noise is the mean of the
    other variances, of which there are no more than images.
    """
    values, variances = _principal_components(features)
    variances *= len(features) / (len(features) - 1)
    kept = 1 + np.searchsorted(variances.cumsum(), 0.95 * variances.sum(), side="right")
    variances[kept:] = variances[kept:].mean()
    if variances[-1] <= 1e-9 * variances[0]:
        raise UserError(
            f"{settings.section}.by: ppca finds no noise in the {len(features)} images of a label; "
            "add images, or choose another value"
        )
    return _log_likelihood(values, variances, variances[-1], features.shape[1])


def _principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return their values [n, r] and variances [r], for r the smaller of n and d.

    A covariance of d² numbers would need gigabytes where a layer has tens of thousands.
    """
    left, lengths, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return left * lengths, lengths**2 / len(features)


def _log_likelihood(
    values: np.ndarray, variances: np.ndarray, noise: float, dimensions: int
) -> np.ndarray:
    """Return [n] for images of which only r components are not 0; the rest has variance `noise`."""
    log_volume = np.log(variances).sum() + (dimensions - len(variances)) * np.log(noise)
    distances = (values**2 / variances).sum(axis=1)
    return -(distances + log_volume + dimensions * np.log(2 * np.pi)) / 2


def neighbour(features: np.ndarray, settings: ValueSettings) -> np.ndarray:
    """Return minus the distance [n] to the fifth nearest other image (DeVries et al. 2020)."""
    distances, _ = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(features).kneighbors()
    return -distances[:, -1]


def cluster(features: np.ndarray, settings: ValueSettings) -> np.ndarray:
    """Return minus the place [n] of each image in its k-means cluster, in a random order.

    So the highest values are equally many images of each cluster that has so many.
    """
    means = KMeans(min(settings.clusters, len(features)), n_init=1, random_state=settings.seed)
    numbers = means.fit_predict(features)
    order = np.random.default_rng(settings.seed).permutation(len(features))
    places = np.empty(len(features))
    for number in range(means.n_clusters):
        members = order[numbers[order] == number]
        places[members] = -np.arange(len(members))
    return places


def core_set(features: np.ndarray, settings: ValueSettings) -> np.ndarray:
    """Return minus the place [n] at which k-centre greedy chooses each image.

    Each choice is the image furthest from those chosen before (Sener and Savarese 2018); the first
    is random. Takes n² distances.
    """
    places, nearest = np.full(len(features), np.nan), np.full(len(features), np.inf)
    chosen = int(np.random.default_rng(settings.seed).integers(len(features)))
    for place in range(len(features)):
        places[chosen] = -place
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen], axis=1))
        nearest[chosen] = -np.inf
        chosen = int(nearest.argmax())
    return places


FEATURE_VALUES: dict[str, Callable[[np.ndarray, ValueSettings], np.ndarray]] = {
    value.__name__: value for value in (gaussian, ppca, neighbour, cluster, core_set)
}
"""Functions by their names in `groups.by` and `select.by`."""


def values_by_label(
    features: np.ndarray, labels: np.ndarray, settings: ValueSettings
) -> np.ndarray:
    """Return the value [n] of each image among those of its label; `labels` are numbers [n].

    It is 0 for held-out images, which are compared with none. Raises UserError where a label has
    too few images.
    """
    values = np.zeros(len(features))
    for label in np.unique(labels[labels != HELD_OUT]):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= NEIGHBOUR:
            raise UserError(
                f"{settings.section}.by: {settings.by} compares the images of a label, and one "
                f"has only {len(rows)}; it takes {NEIGHBOUR + 1} or more"
            )
        part = features[rows].astype(np.float64)  # likelihoods lose their sign in float32
        values[rows] = FEATURE_VALUES[settings.by](part, settings)
    return values
