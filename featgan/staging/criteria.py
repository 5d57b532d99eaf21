"""Criteria: functions that decide when a stage ends and which evaluation is its peak.

A criterion is a pure function of the values measured in the stage so far, one for each evaluation;
higher is better. It is called after each evaluation.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from featgan.staging.settings import CRITERION_NAMES, StageSettings


class Verdict(NamedTuple):
    """The result of a criterion."""

    peak: int
    """Position, from 0, of the stage's evaluation that is its peak so far."""
    over: bool = False
    """True to end the stage now, before its epochs are spent."""


Criterion = Callable[[Sequence[float], StageSettings], tuple[int, bool]]


def peak(values: Sequence[float], stages: StageSettings) -> Verdict:
    """Choose the highest evaluation; the stage trains all its epochs (paper, section 4)."""
    return Verdict(_highest(values))


def smoothed_peak(values: Sequence[float], stages: StageSettings) -> Verdict:
    """Choose the middle of the `window` evaluations with the highest mean (future work 2).

    Only whole windows compete: at the ends, means of fewer values would vary more and so win too
    often.
    """
    window = min(stages.window, len(values))
    means = _means(values, window)
    return Verdict(_highest(means) + (window - 1) // 2)


def patience(values: Sequence[float], stages: StageSettings) -> Verdict:
    """Choose the highest evaluation; end after `patience` evaluations that do not exceed it."""
    best = _highest(values)
    return Verdict(best, len(values) - 1 - best >= stages.patience)


def plateau(values: Sequence[float], stages: StageSettings) -> Verdict:
    """Choose the highest evaluation; end if the mean of the last `window` does not increase.

    Compares the means of two adjacent windows, so that a single outlier neither ends a stage nor
    keeps it going.
    """
    window = stages.window
    if len(values) < 2 * window:
        return Verdict(_highest(values))
    means = _means(values[-2 * window :], window)
    return Verdict(_highest(values), means[-1] <= means[0])


def fixed(values: Sequence[float], stages: StageSettings) -> Verdict:
    """Choose the last evaluation: the stage ends after its epochs, as in CuGAN's batches.

    Soviany et al. 2020.
    """
    return Verdict(len(values) - 1)


CRITERIA: dict[str, Criterion] = dict(
    zip(CRITERION_NAMES, (peak, smoothed_peak, patience, plateau, fixed), strict=True)
)


def _highest(values: Sequence[float]) -> int:
    """Return the position of the first of the highest values."""
    return max(range(len(values)), key=values.__getitem__)


def _means(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each window."""
    return [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]
