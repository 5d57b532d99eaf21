"""The paper's claims against this sweep: a verdict on each.

The authors judged outlines and colours by eye; `featgan.scores.image_quality` measures them. A
claim is supported, contradicted or undecided by paired differences over seeds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.records.sweep_results import SweepResults
from harness.report.statistics import Comparison, compare
from harness.report.table import Column, Table, Value

ENOUGH_SEEDS = 6
"""Fewest seeds whose differences all have one sign by chance in under 5% of sweeps: 2 / 2^6."""


@dataclass(frozen=True)
class Claim:
    """A claim that one mode is above (`sign` 1) or below (-1) another in a measure."""

    first: str
    verb: str
    second: str
    measure: str
    """Column of the runs' frame."""
    sign: int
    digits: int

    @property
    def text(self) -> str:
        """Sentence of the claim."""
        return f"{self.first} {self.verb} {self.second}"


CLAIMS = (
    Claim("conventional", "ends with a higher score than", "descending", "final_score", 1, 3),
    Claim("conventional", "ends with a higher score than", "ascending", "final_score", 1, 3),
    Claim("descending", "needs fewer epochs to its peak than", "conventional",
          "epochs_to_peak", -1, 0),
    Claim("ascending", "needs fewer epochs to its peak than", "conventional",
          "epochs_to_peak", -1, 0),
    Claim("descending", "has clearer outlines than", "conventional", "outlines", 1, 3),
    Claim("conventional", "has clearer outlines than", "ascending", "outlines", 1, 3),
    Claim("ascending", "has stronger colours than", "conventional", "colour", 1, 1),
    Claim("ascending", "makes more similar images than", "conventional", "diversity", -1, 1),
    Claim("descending", "makes images with more features than", "ascending", "feature_count", 1, 1),
)  # fmt: skip


def claim_table(results: SweepResults) -> Table:
    """Return, for each claim of the paper, whether this sweep supports it, and by how much."""
    rows = [row for claim in CLAIMS for row in _verdicts(results, claim)]
    return Table(
        "claims",
        "Which of them this sweep supports",
        [Column(name) for name in ("claim", "data", "supported?", "by how much", "seeds")],
        [*rows, *_middle_groups(results), *_wider_counts(results)],
        [
            "Paired differences over seeds with Student's 95 % interval: supported or "
            "contradicted where it leaves out zero, undecided where it does not. "
            f"Under {ENOUGH_SEEDS} seeds all differences have one sign by chance in more than "
            "5 % of sweeps.",
        ],
    )


def _verdicts(results: SweepResults, claim: Claim) -> Iterator[list[Value]]:
    """Yield a claim's row for each data set and further axes that have runs of both modes."""
    for block in results.blocks():
        for axes, runs in block.by_axes():
            by_mode = dict(zip(runs["mode"], runs["pattern"], strict=True))
            if not {claim.first, claim.second} <= {*by_mode}:
                continue
            pairs = block.paired(claim.measure, by_mode[claim.first], by_mode[claim.second])
            if pairs.size:
                found = compare(*pairs)
                size = f"{found.mean:+.{claim.digits}f}"
                if found.pairs > 1:
                    size += f" ({found.interval(claim.digits)})"
                data = ", ".join([block.data, *(f"{key}={value}" for key, value in axes)])
                yield [claim.text, data, verdict(found, claim.sign), size, found.pairs]


def verdict(found: Comparison, sign: int) -> str:
    """Return what a comparison says of the claim that its difference has this sign."""
    if found.pairs < 2:
        return "one seed: no verdict"
    if not found.clear:
        return "undecided"
    answer = "supported" if found.mean * sign > 0 else "contradicted"
    # Without any effect, n differences all have the same sign once in 2^(n - 1) sweeps.
    return answer if found.pairs >= ENOUGH_SEEDS else f"{answer}, but too few seeds"


def _middle_groups(results: SweepResults) -> Iterator[list[Value]]:
    """Yield, for three k-means groups, if the middle one is over 1.5 times each other one."""
    for record in results.count_groups:
        if (record.method, record.k) == ("kmeans", 3):
            low, middle, high = (group.size for group in record.groups)
            ratio = middle / max(low, high)
            text = "k-means makes the middle group over 1.5 times each other one"
            answer = "supported" if ratio > 1.5 else "contradicted"
            yield [text, record.data, answer, f"{ratio:.2f} times the larger one", None]


def _wider_counts(results: SweepResults) -> Iterator[list[Value]]:
    """Yield, for two data sets, if the more diverse has the wider spread of feature counts.

    Variants of one data set, whose images are the same, are not compared.
    """
    spreads = {}
    for record in results.count_groups:
        counts = np.repeat(list(record.histogram), list(record.histogram.values()))
        spreads[record.data] = float(np.std(counts))
    known = sorted(
        spreads.keys() & results.real_by_name.keys() & {run.cell["data"] for run in results.runs},
        key=lambda data: (results.real_by_name[data].qualities.diversity, data),
    )
    for narrow, diverse in pairwise(known):
        answer = "supported" if spreads[diverse] > spreads[narrow] else "contradicted"
        size = f"sd {spreads[diverse]:.1f} against {spreads[narrow]:.1f}"
        text = "images more diverse (in pixels) spread wider in feature counts"
        yield [text, f"{diverse} against {narrow}", answer, size, None]
