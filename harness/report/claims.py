"""The claims of a sweep: a verdict on each, and the sentence that says it.

The claims named before the first run began are one family with a test for each data set and axes:
they are supported or contradicted at a p-value that is corrected for all tests. Other claims, data
sets and axes are exploratory, without a verdict.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product

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
NO_COLOUR = "no verdict: the real images have no colour"
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
    """First minus second pattern; None for a claim that no seed varies."""
    corrected: float = np.nan
    """The p-value corrected for the family; NaN of a claim that is not tested, and with `up_to`."""

    @property
    def sentence(self) -> str:
        """The claim with its numbers and verdict."""
        text = f"{self.claim[0].upper()}{self.claim[1:]} on {self.data}: "
        if found := self.found:
            text += f"{signed(found.mean)}, "
            if found.pairs > 1:
                text += f"95% interval {signed(found.low)} to {signed(found.high)}, "
                corrected = f" ({self.corrected:.3g} corrected)" if self.corrected >= 0 else ""
                text += f"p = {found.p:.3g}{corrected}, "
            text += f"{found.pairs} seed{'s' * (found.pairs > 1)}: "
        return f"{text}{'; '.join([self.verdict, *self.remarks])}."


@dataclass(frozen=True)
class _Question:
    """A claim on the runs of one data set and further axes: a test, if it is of the family."""

    claim: Claim
    test: str
    """Its name in the family."""
    data: str
    """The data set and the axes; the protocol, where a data set has several."""
    choices: Sequence[float]
    """Evaluations that the kept models of both were chosen among, in the median."""
    difference: pd.Series
    """First minus second pattern, by seed; NaN where one has no value."""
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
    without = _verdicts(results, whole) if any(q.spoiled.any() for q in questions) else verdicts
    given = []
    for q, (verdict, corrected, look, found), cleaned in zip(
        questions, verdicts, without, strict=True
    ):
        claim, remarks = q.claim, []
        if results.plan.up_to and look:
            remarks.append(f"decided at {look} seeds, the numbers are of all")
        if found and found.pairs > 1 and verdict == "undecided":
            level = LEVEL / len(results.plan.tests)
            needed = seeds_needed(abs(found.mean), found.sd, POWER, level)
            more = f"{max(needed, found.pairs + 1):,}" if needed else "over 10,000"
            remarks.append(f"{more} seeds would decide it" if found.mean else "no difference")
        if found and claim.measure == "kept_score":
            first, second = q.choices
            remarks.append(f"chosen among {first:.0f} evaluations against {second:.0f}")
            end = decided.get((replace(claim, measure="end_score"), q.data), verdict)
            if len({verdict, end} & {*DECISIONS}) == 2:
                comes = "may come" if "undecided" in (verdict, end) else "comes"
                chosen = f": the difference {comes} from choosing"
                more_choices = verdict != "undecided" and found.mean * (first - second) > 0
                remarks.append(f"the end of training is {end}{chosen if more_choices else ''}")
        if found and found.skewed:
            remarks.append("the differences look skewed")
        if (seeds := q.spoiled.sum()) and not q.untested:
            left = found.pairs - seeds if found else 0
            words = cleaned[0] if left >= FEWEST_SEEDS else f"{left} are too few for a verdict"
            remarks.append(f"without seeds of collapsed or diverged runs ({seeds}): {words}")
        given.append(Answer(claim.statement, q.data, verdict, tuple(remarks), found, corrected))
    begun = {q.test for q in questions}
    for test in (test for test in results.plan.tests if test not in begun):
        text, _, data = test.partition(" on ")
        verdict = "not decided: no seed of both, scored alike, has begun"
        given.append(Answer(parse_claim(text)[0].statement, data, verdict))
    return [*given, *_middle_groups(results), *_wider_counts(results)]


def remarks(results: SweepResults) -> list[str]:
    """Return what is true of all answers, a sentence each."""
    found = [
        "A seed varies initial weights, batches and noise, not the images, their groups or the "
        "classifier: conclusions hold for those alone.",
        "Differences are first minus second. Intervals are Student's, of each claim alone, "
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
    looks = results.plan.looks
    return [*found, *(f"An unplanned look: {of}; the level of 0.05 does not hold." for of in looks)]


def claim_table(results: SweepResults) -> Table:
    """Return each claim with its verdict and numbers."""
    rows = [
        {**vars(a), **(vars(a.found) if a.found else {}), "remarks": "; ".join(a.remarks)}
        for a in answers(results)
    ]
    names = ["claim", "data", "verdict", *DIFFERENCE, "remarks"]
    notes = [
        "First minus second. Low, high: Student's 95 % interval. p: two-sided sign-flip test; "
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
    """Yield claims for all runs of both patterns; None: the family's, then the exploratory ones."""
    texts = [test.partition(" on ")[0] for test in (*results.plan.tests, *results.plan.later)]
    claims = dict.fromkeys(c for text in (*texts, *PAPER_CLAIMS) for c in parse_claim(text))
    blocks = [
        (block, {key: (of["mode"], dict(of["axes"])) for key, of in block.patterns.iterrows()})
        for block in results.blocks()
    ]
    for claim, (block, patterns) in product(claims if asked is None else asked, blocks):
        column = COLUMNS.get(claim.measure, claim.measure)
        by_seed = block.by_seed(column)
        for test, *both in claim.tests(block.data, patterns):
            runs, values = block.runs[block.runs["pattern"].isin(both)], by_seed.reindex(both)
            difference = values.iloc[0] - values.iloc[1]
            untested = "" if test in results.plan.tests else "exploratory"
            if claim.measure == "colour" and block.real and block.real.qualities.colour < GREY:
                untested = untested or NO_COLOUR
            elif runs[column][runs["counts"]].isna().any():
                untested = untested or "not decided: re-score first"
                difference *= np.nan
            elif not difference.notna().any():
                untested = untested or "not decided: no seed of both has finished"
            data = test.partition(" on ")[2]
            data += f" ({readable(block.protocol)})" if block.suffix else ""
            bad = runs["seed"][runs["collapsed"] | (runs["status"] == "diverged")]
            spoiled = difference.index.isin(bad) & difference.notna().to_numpy()
            choices = runs.groupby("pattern")["choices"].median()[both]
            yield _Question(claim, test, data, choices, difference, untested, spoiled)


def _verdicts(
    results: SweepResults, questions: Sequence[_Question]
) -> Iterator[tuple[str, float, int, Comparison | None]]:
    """Yield verdict, corrected p-value, number of seeds that decided, and numbers of each question.

    The family is corrected for as a whole, also while a part of it cannot be tested yet. A fixed
    number of seeds has one look: when all runs have ended.
    """
    tested = [not question.untested for question in questions]
    frame = pd.DataFrame([question.difference for question in questions]).sort_index(axis=1)
    rows = [row[np.isfinite(row)] for row in frame.to_numpy()]
    found = [compare(row) if row.size else None for row in rows]
    table = frame.to_numpy()[tested]
    clear, corrected = np.zeros(len(tested), int), np.full(len(tested), np.nan)
    family = len(results.plan.tests) - sum(q.untested == NO_COLOUR for q in questions)
    ended = results.frame["status"].isin(["finished", "diverged", "failed"])
    running = [*results.frame["seed"][~ended], *(cell["seed"] for cell in results.missing)]
    undecided = DECISIONS[0]
    if up_to := results.plan.up_to:
        whole = np.searchsorted(frame.columns.to_numpy(), min(running, default=np.inf))
        if len(table) >= family:
            clear[tested] = sequential(table[:, :whole], up_to)
    elif any(tested):
        alone = [one.p if one else np.nan for one in found]
        share = max(family / len(table), 1)
        corrected[tested] = np.clip(step_down(table) * share, np.array(alone)[tested], 1)
        if running:
            undecided = f"not decided: {len(running)} runs have not ended"
        else:
            clear[corrected < LEVEL] = table.shape[1]
    for question, row, seeds, p, numbers in zip(
        questions, frame.to_numpy(), clear, corrected, found, strict=True
    ):
        agrees = np.nansum(row[:seeds]) * question.claim.sign > 0
        verdict = DECISIONS[1 if agrees else 2] if seeds else undecided
        yield question.untested or verdict, p, int(seeds), numbers


def _middle_groups(results: SweepResults) -> Iterator[Answer]:
    """Yield, for three k-means groups of all images, if the middle one is far the largest."""
    claim = "k-means makes the middle group over 1.5 times as large as each other one"
    for record in results.count_groups:
        if (record.method, record.k, record.selected) == ("kmeans", 3, ""):
            low, middle, high = (group.size for group in record.groups)
            larger = max(low, high)
            size = f"{middle:,} images against {larger:,}"
            yield Answer(claim, record.data, "yes" if middle > 1.5 * larger else "no", (size,))


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
