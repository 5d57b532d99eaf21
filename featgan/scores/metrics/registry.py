"""The functions of the built-in metrics, and a call of any metric by its name."""

from collections.abc import Callable

from torch import Tensor

from featgan.scores.metrics.authenticity import authenticity
from featgan.scores.metrics.cmmd import clip_discrepancy
from featgan.scores.metrics.density_coverage import density_coverage
from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.kid import kernel_distance
from featgan.scores.metrics.precision_recall import precision_recall
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.settings import reported
from featgan.user_code import resolve, user_code_errors

FUNCTIONS: dict[str, Callable[[FeatureStatistics, Tensor], float | tuple[float, ...]]] = {
    "fid": frechet_distance,
    "kid": kernel_distance,
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
    "cmmd": clip_discrepancy,
    "authpct": authenticity,
}
"""Functions of features of real and of generated images, by the names in `settings.METRICS`."""


def measure(metric: str, real: FeatureStatistics, generated: Tensor) -> dict[str, float]:
    """Return the numbers of a metric for features [n, d] of generated images, by their names.

    A user-defined metric returns one number.
    """
    if metric in FUNCTIONS:
        found = FUNCTIONS[metric](real, generated)
    else:
        with user_code_errors(metric):
            found = float(resolve(metric, FUNCTIONS)(real, generated))  # type: ignore[arg-type]
    values = found if isinstance(found, tuple) else (found,)
    return dict(zip(reported([metric]), values, strict=True))
