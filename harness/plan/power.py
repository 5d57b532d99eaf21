"""How many seeds it takes to find a difference: the power of the paired t test.

A report's p-values are of sign flips, whose power Student's t approximates closely. The level is
corrected by Bonferroni's bound, which the hardest step of a stepwise correction needs at most; so
claims decided early leave more power to the others than is computed here. For fixed numbers of
seeds: looks at `up_to` cost some power, and save seeds where the difference is larger.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from scipy.special import nctdtrinc, stdtrit

from harness.plan.settings import FEWEST_SEEDS, Sweep

LEVEL = 0.05
MOST_SEEDS = 10_000
"""Largest number of seeds that is looked for."""


class Deviation(NamedTuple):
    """The standard deviation of paired differences over seeds."""

    sd: float
    seeds: int


def seeds_needed(difference: float, sd: float, power: float, level: float) -> int | None:
    """Return the fewest seeds that find a difference; None for more than `MOST_SEEDS`.

    More than `FEWEST_SEEDS`: fewer pairs have no p under 0.05, and those only if all signs agree.
    """
    fewest = bisect_left(
        range(MOST_SEEDS + 1),
        -difference,
        lo=FEWEST_SEEDS + 1,
        key=lambda seeds: -detectable(seeds, sd, power, level),
    )
    return fewest if fewest <= MOST_SEEDS else None


def detectable(seeds: int, sd: float, power: float, level: float) -> float:
    """Return the true difference that a two-sided paired t test finds with this power.

    Its t value has a noncentral t distribution (Cohen 1988, section 2.5).
    """
    critical = stdtrit(seeds - 1, 1 - level / 2)
    return float(nctdtrinc(seeds - 1, 1 - power, critical) * sd / math.sqrt(seeds))


def seeds_text(sweep: Sweep, tests: int, deviations: Mapping[str, Deviation]) -> str:
    """Return how many seeds the sweep's `verdict.difference` takes, and what its seeds find.

    `tests` is the size of the family. `deviations` are those of runs that are done, by a name of
    each comparison; the largest counts.
    """
    difference, power = sweep.verdict.difference, sweep.verdict.power
    assert difference is not None
    what = f"seeds: a difference of {difference:g} in fresh scores"
    if not tests:
        return "seeds: no two runs of the grid differ as one of the claims says: see verdict.claims"
    if not deviations:
        return (
            f"{what} takes a number that depends on the standard deviation of paired differences: "
            "run and re-score two seeds of what a claim compares first, or name the folder of an "
            "earlier sweep in verdict.sd_from"
        )
    name, (sd, pairs) = max(deviations.items(), key=lambda item: item[1].sd)
    level, seeds = LEVEL / tests, min(len(grid.seeds) for grid in sweep.grid)
    needed = seeds_needed(difference, sd, power, level) or f"over {MOST_SEEDS:,}"
    found = f"find one of {detectable(seeds, sd, power, level):.2g}"
    if seeds < FEWEST_SEEDS:
        found = f"find none: fewer than {FEWEST_SEEDS} have no p under {LEVEL:g}"
    if seeds == FEWEST_SEEDS:
        found = f"find one only if the sign is the same in all {FEWEST_SEEDS}"
    return (
        f"{what} takes {needed}, at power {power:g} and level {LEVEL:g} / {tests}, Bonferroni's "
        f"bound for {tests} tests\n  the grid's {seeds} {found}\n"
        f"  the standard deviation of paired differences is {sd:.2g}, the largest of "
        f"{len(deviations)}: {name}, {pairs} seeds"
    )
