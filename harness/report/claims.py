"""The paper's claims against this sweep: qualities of the images, and a verdict on each claim.

The authors judged outlines and colours by eye; `featgan.qualities` measures them. A claim is
supported, contradicted or undecided by paired differences over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from harness.records.run_record import RunRecord
from harness.records.sweep_records import CountStatistics, Rescored
from harness.records.sweep_results import Outcome, Pattern
from harness.report.inference import Comparison, compare, mean
from harness.report.statistics import few_seeds, paired
from harness.report.table import Column, Table, Value

QUALITIES = (
    ("sharpness", "outline sharpness", 2),
    ("saturation", "saturation", 3),
    ("colourfulness", "colourfulness", 1),
    ("diversity", "diversity", 1),
    ("near_duplicates", "near-duplicates", 3),
    ("nearest_training", "nearest training image", 1),
)


def quality_tables(outcome: Outcome) -> list[Table]:
    """What real and generated images look like, in numbers; one table a data set."""
    tables = []
    for data in outcome.data_sets:
        rows: list[list[Value]] = []
        runs = [run for run in outcome.runs if run.cell["data"] == data]
        variants = dict.fromkeys(map(outcome.variant, runs))
        for variant in variants:
            rows += _real_rows(outcome, variant, f" ({variant})" if len(variants) > 1 else "")
        for pattern in (p for p in outcome.patterns if p.data == data):
            found = _measured(outcome, pattern)
            if found:
                numbers = [
                    mean([getattr(again.qualities, key) for again in found])
                    for key, _, _ in QUALITIES
                ]
                counted = [c for again in found if (c := again.feature_counts)]
                centre = mean([counts.mean for counts in counted])
                spread = mean([counts.sd for counts in counted])
                rows.append([pattern.label, len(found), *numbers, centre, spread])
        columns = [
            Column("images"),
            Column("runs"),
            *(Column(name, digits) for _, name, digits in QUALITIES),
            Column("feature count, mean", 1),
            Column("sd", 1),
        ]
        notes = [
            "Sharpness: RMS gradient of the luminance, in grey levels a pixel. Saturation: HSV, "
            "0 to 1. Colourfulness: Hasler and Süsstrunk. Distances are RMS, in grey levels, at "
            "32 by 32: diversity over all pairs; near-duplicates is the share of images with "
            "another nearer than 10; nearest training image well below that of real images "
            "(to other real ones) means copying.",
            "Feature counts are of images at the size they are trained at, so that real and "
            "generated ones compare; the groups were made from the originals.",
        ]
        if rows:
            title = f"{data}: real and generated images"
            tables.append(Table(f"qualities-{data}", title, columns, rows, notes))
    return tables


ENOUGH_SEEDS = 6
"""Fewest seeds whose differences all have one sign by chance in under 5% of sweeps: 2 / 2^6."""


@dataclass(frozen=True)
class Claim:
    """That `first` is above (`sign` 1) or below (-1) `second` in some measure."""

    text: str
    first: str
    second: str
    measure: str
    sign: int
    digits: int


CLAIMS = (
    Claim("conventional ends with a higher score than descending",
          "conventional", "descending", "final score", 1, 3),
    Claim("conventional ends with a higher score than ascending",
          "conventional", "ascending", "final score", 1, 3),
    Claim("descending needs fewer epochs to its peak than conventional",
          "descending", "conventional", "epochs to peak", -1, 0),
    Claim("ascending needs fewer epochs to its peak than conventional",
          "ascending", "conventional", "epochs to peak", -1, 0),
    Claim("descending has clearer outlines than conventional",
          "descending", "conventional", "sharpness", 1, 2),
    Claim("conventional has clearer outlines than ascending",
          "conventional", "ascending", "sharpness", 1, 2),
    Claim("ascending has more saturated colours than conventional",
          "ascending", "conventional", "saturation", 1, 3),
    Claim("ascending makes more similar images than conventional",
          "ascending", "conventional", "diversity", -1, 1),
    Claim("features steer: descending's images have more of them than ascending's",
          "descending", "ascending", "feature count", 1, 1),
)  # fmt: skip


def _real_rows(outcome: Outcome, variant: str, which: str) -> list[list[Value]]:
    """What the real images of a data set look like, all and by group."""
    real = outcome.real.get(variant)
    if real is None:
        return []
    numbers: list[Value] = [getattr(real.qualities, key) for key, _, _ in QUALITIES]
    gaps: list[Value] = [None] * len(QUALITIES)
    return [
        [f"real images{which}", None, *numbers, *_counts(real.feature_counts)],
        *(
            [f"real images of group {number}{which}", None, *gaps, *_counts(counts)]
            for number, counts in real.group_counts.items()
        ),
    ]


def claim_table(outcome: Outcome) -> Table:
    """For each claim of the paper: supported here? By how much, over how many seeds?"""
    rows = [row for claim in CLAIMS for row in _compared(outcome, claim)]
    most = max((int(row[-1] or 0) for row in rows), default=0)
    return Table(
        "claims",
        "Which of them this sweep supports",
        [Column(name) for name in ("claim", "data", "supported?", "by how much", "seeds")],
        [*rows, *_uneven_groups(outcome), *_wider_counts(outcome)],
        [
            "Paired differences over seeds with a 95 % bootstrap interval: supported or "
            "contradicted where it leaves out zero, undecided where it does not. "
            f"Under {ENOUGH_SEEDS} seeds an interval leaves out zero by chance more often "
            "than in 5 % of sweeps, whatever it says.",
            *few_seeds(most),
        ],
    )


def _compared(outcome: Outcome, claim: Claim) -> Iterator[list[Value]]:
    """A claim's row for each data set (and further axis) that has runs of both modes."""
    for a, b in product(outcome.patterns, repeat=2):
        alike = (a.data, a.axes, a.protocol) == (b.data, b.axes, b.protocol)
        if alike and (a.mode, b.mode) == (claim.first, claim.second):
            pairs = paired(a, b, lambda run: _value(outcome, run, claim.measure))
            if pairs:
                found = compare(*zip(*pairs, strict=True))
                axes = "".join(f", {key}={value}" for key, value in a.axes)
                much = _difference(found, claim.digits)
                yield [claim.text, a.data + axes, verdict(found, claim.sign), much, found.pairs]


def _value(outcome: Outcome, run: RunRecord, measure: str) -> float | None:
    """What a claim compares, of one run; None where it was not measured."""
    if measure == "final score":
        return run.final_score
    if measure == "epochs to peak":
        return float(run.epochs_to_peak)
    again = outcome.rescored.get(run.run)
    if again is None:
        return None
    if measure == "feature count":
        return again.feature_counts.mean if again.feature_counts else None
    return float(getattr(again.qualities, measure))


def _uneven_groups(outcome: Outcome) -> Iterator[list[Value]]:
    """Three k-means groups: is the middle one over 1.5 times each other one?"""
    for record in outcome.count_groups:
        if (record.method, record.k) == ("kmeans", 3):
            low, middle, high = (group.size for group in record.groups)
            ratio = middle / max(low, high)
            text = "k-means makes the middle group over 1.5 times each other one"
            answer = "supported" if ratio > 1.5 else "contradicted"
            yield [text, record.data, answer, f"{ratio:.2f} times the larger one", None]


def _wider_counts(outcome: Outcome) -> Iterator[list[Value]]:
    """Of two data sets: has the more diverse one the wider spread of feature counts?

    Not asked of the variants of one data set, whose images are the same.
    """
    spreads, whole = {}, {run.cell["data"] for run in outcome.runs}
    for record in outcome.count_groups:
        counts = np.repeat(list(record.histogram), list(record.histogram.values()))
        spreads[record.data] = float(np.std(counts))
    known = sorted(
        (data for data in spreads if data in outcome.real and data in whole),
        key=lambda data: outcome.real[data].qualities.diversity,
    )
    for narrow, diverse in pairwise(known):
        answer = "supported" if spreads[diverse] > spreads[narrow] else "contradicted"
        much = f"sd {spreads[diverse]:.1f} against {spreads[narrow]:.1f}"
        text = "images more diverse (in pixels) spread wider in feature counts"
        yield [text, f"{diverse} against {narrow}", answer, much, None]


def verdict(found: Comparison, sign: int) -> str:
    """What a comparison says of the claim that its difference has this sign."""
    if found.pairs < 2:
        return "one seed: no verdict"
    if not found.clear:
        return "undecided"
    answer = "supported" if found.mean * sign > 0 else "contradicted"
    # Without any effect, n differences all have the same sign once in 2^(n - 1) sweeps.
    return answer if found.pairs >= ENOUGH_SEEDS else f"{answer}, but too few seeds"


def _difference(found: Comparison, digits: int) -> str:
    if found.pairs < 2:
        return f"{found.mean:+.{digits}f}"
    return f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def _measured(outcome: Outcome, pattern: Pattern) -> list[Rescored]:
    found = (outcome.rescored.get(run.run) for run in pattern.finished)
    return [again for again in found if again is not None]


def _counts(counts: CountStatistics | None) -> list[Value]:
    return [counts.mean, counts.sd] if counts else [None, None]
