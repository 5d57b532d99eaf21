"""Criteria: when a stage ends, and which of its evaluations counts as its peak.

A criterion is a pure function of what was measured in the stage so far, one value an
evaluation and higher is better. It is asked after each evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from featgan.staging.settings import StageSettings


class Verdict(NamedTuple):
    """What a criterion says after an evaluation."""

    peak: int
    """Position, from 0, of the stage's evaluation that is its peak so far."""
    over: bool = False
    """Whether the stage ends now, before its epochs are spent."""


Criterion = Callable[[Sequence[float], StageSettings], tuple[int, bool]]


def peak(values: Sequence[float], stages: StageSettings) -> Verdict:
    """The highest evaluation, known once the stage has run (paper, section 4)."""
    return Verdict(_highest(values))


def smoothed_peak(values: Sequence[float], stages: StageSettings) -> Verdict:
    """The middle of the `window` evaluations with the highest mean (paper, future work 2).

    Only whole windows compete: at the ends, means over fewer would scatter more and so win
    too often.
    """
    window = min(stages.window, len(values))
    means = _means(values, window)
    return Verdict(_highest(means) + (window - 1) // 2)


def patience(values: Sequence[float], stages: StageSettings) -> Verdict:
    """The highest evaluation; over once `patience` evaluations have not surpassed it."""
    best = _highest(values)
    return Verdict(best, len(values) - 1 - best >= stages.patience)


def plateau(values: Sequence[float], stages: StageSettings) -> Verdict:
    """The highest evaluation; over once the last `window` are no better on average than before.

    Compares the means of two neighbouring windows, so that one fluke neither ends a stage nor
    keeps it going.
    """
    window = stages.window
    if len(values) < 2 * window:
        return Verdict(_highest(values))
    means = _means(values[-2 * window :], window)
    return Verdict(_highest(values), means[-1] <= means[0])


def fixed(values: Sequence[float], stages: StageSettings) -> Verdict:
    """The last evaluation, whatever it measured: the stage just ends after its epochs.

    As the batches of CuGAN (Soviany et al. 2020) follow each other.
    """
    return Verdict(len(values) - 1)


CRITERIA: dict[str, Criterion] = {
    "peak": peak,
    "smoothed_peak": smoothed_peak,
    "patience": patience,
    "plateau": plateau,
    "fixed": fixed,
}


def _highest(values: Sequence[float]) -> int:
    """Position of the highest value; the first of equals."""
    return max(range(len(values)), key=values.__getitem__)


def _means(values: Sequence[float], window: int) -> list[float]:
    return [
        sum(values[start : start + window]) / window for start in range(len(values) - window + 1)
    ]
