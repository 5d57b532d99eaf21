"""The claims of a sweep: a verdict on each, and the sentence that says it.

The claims named before the first run was scored are one family: they are supported or contradicted
at a p-value that is corrected for all of them. Other claims are exploratory, without a verdict.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd

from featgan.scores.image_quality import GREY
from harness.plan.claims import PAPER_CLAIMS, SCORES, Claim, parse_claim
from harness.plan.power import LEVEL, Deviation, seeds_needed
from harness.plan.settings import FEWEST_SEEDS
from harness.records.sweep_results import SweepResults
from harness.report.paper_tables import readable
from harness.report.seed_tables import DIFFERENCE, DIGITS, HEADINGS
from harness.report.statistics import Comparison, compare, sequential, step_down
from harness.report.table import Table, signed

COLUMNS = {"kept_score": "fresh", "end_score": "fresh_last"}
"""Columns of the runs by measure; those of other measures have the measure's name."""
DECISIONS = ("undecided", "supported", "contradicted")
POWER = 0.8
"""Power with which as many seeds as are named would decide a claim."""


@dataclass(frozen=True)
class Answer:
    """What a sweep says of a claim on one data set."""

    claim: str
    data: str
    verdict: str
    remarks: tuple[str, ...] = ()
    found: Comparison | None = None
    """First minus second mode; None for a claim that no seed varies."""
    corrected: float = np.nan
    """The p-value corrected for the family; NaN of a claim that is not tested."""

    @property
    def sentence(self) -> str:
        """The claim with its numbers and verdict."""
        text = f"{self.claim[0].upper()}{self.claim[1:]} on {self.data}: "
        if found := self.found:
            text += f"{signed(found.mean)}, "
            if found.pairs > 1:
                text += f"95% interval {signed(found.low)} to {signed(found.high)}, "
                corrected = f" ({self.corrected:.2g} corrected)" if self.corrected >= 0 else ""
                text += f"p = {found.p:.2g}{corrected}, "
            text += f"{found.pairs} seed{'s' * (found.pairs > 1)}: "
        return f"{text}{'; '.join([self.verdict, *self.remarks])}."


@dataclass(frozen=True)
class _Question:
    """A claim on the runs of one data set and further axes."""

    claim: Claim
    data: str
    runs: pd.DataFrame
    """Those of the two modes."""
    difference: pd.Series
    """First minus second mode, by seed; NaN where one has no value."""
    untested: str
    """Verdict on a claim that is not tested; empty for one of the family."""
    spoiled: np.ndarray
    """True for the seeds of which a run collapsed or diverged."""


@lru_cache(maxsize=1)  # page, table and terminal ask for those of one sweep
def answers(results: SweepResults) -> list[Answer]:
    """Return an answer to each claim on each data set, in the order of the claims."""
    questions = [*_questions(results)]
    verdicts = [*_verdicts(results, questions)]
    decided = {(q.claim, q.data): v for q, (v, *_) in zip(questions, verdicts, strict=True)}
    whole = [replace(q, difference=q.difference.mask(q.spoiled)) for q in questions]
    without = [verdict for verdict, *_ in _verdicts(results, whole)]
    given = []
    for q, (verdict, corrected, look), cleaned in zip(questions, verdicts, without, strict=True):
        claim, pairs, remarks = q.claim, q.difference.dropna(), []
        found = compare(pairs) if pairs.size else None
        if results.plan.up_to and look:
            remarks.append(f"decided at {look} seeds")
        if found and found.pairs > 1 and verdict == "undecided":
            level = LEVEL / sum(not q.untested for q in questions)
            needed = seeds_needed(abs(found.mean), found.sd, POWER, level)
            more = f"{max(needed, found.pairs + 1):,}" if needed else "over 10,000"
            remarks.append(f"{more} seeds would decide it" if found.mean else "no difference")
        if found and claim.measure == "kept_score":
            choices = q.runs.groupby("mode")["choices"].median()
            first, second = choices[[claim.first, claim.second]]
            remarks.append(f"chosen among {first:.0f} evaluations against {second:.0f}")
        if found and found.skewed:
            remarks.append("the differences look skewed, so p may be too low")
        if (seeds := q.spoiled.sum()) and not q.untested:
            remarks.append(f"without seeds of collapsed or diverged runs ({seeds}): {cleaned}")
        end = decided.get((replace(claim, measure="end_score"), q.data), verdict)
        if claim.measure == "kept_score" and len({verdict, end} & {*DECISIONS}) == 2:
            comes = "may come" if "undecided" in (verdict, end) else "comes"
            remarks.append(f"the end of training is {end}: the difference {comes} from choosing")
        text = f"{claim.first} training {claim.verb} {claim.second}"
        given.append(Answer(text, q.data, verdict, tuple(remarks), found, corrected))
    return [*given, *_middle_groups(results), *_wider_counts(results)]


def remarks(results: SweepResults) -> list[str]:
    """Return what is true of all answers, a sentence each."""
    found = [
        "A seed varies initial weights, batches and noise, not the images, their groups or the "
        "classifier: conclusions hold for those alone.",
        "Differences are first minus second mode. Intervals are Student's, of each claim alone, "
        "and may leave out 0 where a claim is undecided; p is of the sign-flip test. "
        + (
            f"Neither allows for the looks at up to {up_to} seeds; the verdicts do."
            if (up_to := results.plan.up_to)
            else "A verdict needs a p under 0.05 after correction for all claims that are tested."
        ),
    ]
    given = answers(results)
    if any("would decide" in remark for answer in given for remark in answer.remarks):
        found.append(
            f"As many seeds as are said to decide a claim do so with probability {POWER} if its "
            "difference and standard deviation are as measured, which few seeds measure roughly."
        )
    if few := [a.found.pairs for a in given if a.found and a.found.pairs < FEWEST_SEEDS]:
        least = f"the smallest p-value of {max(few)} is {2 / 2 ** max(few):.2g}"
        found.append(f"No verdict is possible with fewer than {FEWEST_SEEDS} seeds: {least}.")
    return [*found, *results.plan.looks]


def claim_table(results: SweepResults) -> Table:
    """Return each claim with its verdict and numbers."""
    rows = [
        {**vars(a), **(vars(a.found) if a.found else {}), "remarks": "; ".join(a.remarks)}
        for a in answers(results)
    ]
    names = ["claim", "data", "verdict", *DIFFERENCE, "remarks"]
    notes = [
        "First minus second mode. Low, high: Student's 95 % interval. p: two-sided sign-flip test; "
        "corrected for all tested claims by Westfall and Young's step-down. A diverged run counts "
        "as the lowest score, 1."
    ]
    frame = pd.DataFrame(rows, columns=names, dtype=object).rename(columns=HEADINGS)
    return Table("claims", "Claims", frame, notes, DIGITS)


def deviations(results: SweepResults, claims: Sequence[Claim]) -> dict[str, Deviation]:
    """Return the deviations of paired differences of claims on scores, by claim and data set."""
    asked = _questions(results, [claim for claim in claims if claim.measure in SCORES])
    found = {f"{q.claim.text} on {q.data}": q.difference.dropna() for q in asked}
    return {name: Deviation(float(d.std()), len(d)) for name, d in found.items() if len(d) > 1}


def _questions(results: SweepResults, asked: Iterable[Claim] | None = None) -> Iterator[_Question]:
    """Yield claims for all runs of both modes; None: the family's, then the exploratory ones."""
    family = [claim for text in results.plan.claims for claim in parse_claim(text)]
    others = [c for text in (*results.plan.later, *PAPER_CLAIMS) for c in parse_claim(text)]
    blocks = [*results.blocks()]
    for claim in dict.fromkeys([*family, *others]) if asked is None else asked:
        column = COLUMNS.get(claim.measure, claim.measure)
        for block in blocks:
            by_seed = block.by_seed(column)
            for axes, runs in block.by_axes():
                runs = runs[runs["mode"].isin([claim.first, claim.second])]
                patterns = dict(zip(runs["mode"], runs["pattern"], strict=True))
                if len(patterns) < 2:
                    continue
                both = by_seed.reindex([patterns[claim.first], patterns[claim.second]])
                difference = both.iloc[0] - both.iloc[1]
                untested = "" if claim in family else "exploratory"
                if claim.measure == "colour" and block.real and block.real.qualities.colour < GREY:
                    untested = untested or "no verdict: the real images have no colour"
                elif runs[column][runs["counts"]].isna().any():
                    untested = untested or "not decided: re-score first"
                    difference *= np.nan
                data = ", ".join([block.data, *(f"{key}={value}" for key, value in axes)])
                data += f" ({readable(block.protocol)})" if block.suffix else ""
                bad = runs["seed"][runs["collapsed"] | (runs["status"] == "diverged")]
                if untested or difference.notna().any():
                    spoiled = difference.index.isin(bad)
                    yield _Question(claim, data, runs, difference, untested, spoiled)


def _verdicts(
    results: SweepResults, questions: Sequence[_Question]
) -> Iterator[tuple[str, float, int]]:
    """Yield verdict, corrected p-value and number of seeds that decided each question.

    The questions that are tested are one family.
    """
    tested = [not question.untested for question in questions]
    frame = pd.DataFrame([question.difference for question in questions]).sort_index(axis=1)
    table = frame.to_numpy()[tested]
    clear, corrected = np.zeros(len(tested), int), np.full(len(tested), np.nan)
    if up_to := results.plan.up_to:
        ended = results.frame["status"].isin(["finished", "diverged", "failed"])
        missing = [*results.frame["seed"][~ended], *(cell["seed"] for cell in results.missing)]
        whole = np.searchsorted(frame.columns.to_numpy(), min(missing, default=np.inf))
        clear[tested] = sequential(table[:, :whole], up_to)
    else:
        corrected[tested] = step_down(table)
        clear[corrected < LEVEL] = table.shape[1]
    for question, row, seeds, p in zip(questions, frame.to_numpy(), clear, corrected, strict=True):
        agrees = np.nansum(row[:seeds]) * question.claim.sign > 0
        verdict = DECISIONS[0 if not seeds else 1 if agrees else 2]
        yield question.untested or verdict, p, int(seeds)


def _middle_groups(results: SweepResults) -> Iterator[Answer]:
    """Yield, for three k-means groups, if the middle one is over 1.5 times as large as each."""
    claim = "k-means makes the middle group over 1.5 times as large as each other one"
    for record in results.count_groups:
        if (record.method, record.k) == ("kmeans", 3):
            low, middle, high = (group.size for group in record.groups)
            ratio = middle / max(low, high)
            size = f"{ratio:.2f} times the larger one"
            yield Answer(claim, record.data, "yes" if ratio > 1.5 else "no", (size,))


def _wider_counts(results: SweepResults) -> Iterator[Answer]:
    """Yield, for two data sets, if the more diverse has the wider spread of feature counts.

    Variants of one data set, whose images are the same, are not compared.
    """
    spreads = {
        record.data: np.std(np.repeat([*record.histogram], [*record.histogram.values()]))
        for record in results.count_groups
    }
    known = sorted(
        spreads.keys() & results.real_by_name.keys() & {run.cell["data"] for run in results.runs},
        key=lambda data: (results.real_by_name[data].qualities.diversity, data),
    )
    for narrow, diverse in pairwise(known):
        answer = "yes" if spreads[diverse] > spreads[narrow] else "no"
        size = f"sd {spreads[diverse]:.1f} against {spreads[narrow]:.1f}"
        text = "images more diverse (in pixels) spread wider in feature counts"
        yield Answer(text, f"{diverse} against {narrow}", answer, remarks=(size,))
