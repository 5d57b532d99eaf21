"""The claims of a sweep: supported, contradicted, undecided, or not tested."""

import io
import json

import pandas as pd
import pytest

from harness.plan.claims import PAPER_CLAIMS, parse_claim
from harness.records.sweep_results import SweepResults
from harness.report.claims import answers, claim_table, deviations, remarks

PAPER = [
    f"{claim.text} on a"
    for text in PAPER_CLAIMS
    for claim in parse_claim(text)
    if {claim.first, claim.second} == {"conventional", "descending"}
]
KEPT = "conventional training keeps a model of higher score than descending"
END = "conventional training ends with a higher score than descending"
END_CLAIM = "conventional > descending in end_score"
HIGH = [3.1, 3.2, 3.0, 3.3, 3.1, 3.2, 3.4]
LOW = [2.0, 2.2, 2.1, 2.0, 2.3, 2.1, 2.2]
MIXED = [3.0, 1.0, 2.0, 3.0, 1.0, 2.5, 1.5]


@pytest.fixture
def study(tmp_path, make_run, save_run, save_rescored):
    """Return a function that writes a sweep of two patterns from fresh scores; None: diverged.

    `end` are those of the end of training, `measured` other qualities of both.
    """

    def write(
        first, second, *, end=None, rescored=True, plan=None, mode=None, axes=({}, {}), **measured
    ):
        cells = []
        modes = [mode, mode] if mode else ["conventional", "descending"]
        for number, (mode, values) in enumerate(zip(modes, (first, second), strict=True)):
            for seed, fresh in enumerate(values):
                cell = {"data": "a", "mode": mode, "seed": seed, **axes[number]}
                cells.append(cell)
                stages = [[2.0, 3.0, 2.5]] if mode == "conventional" else [[2.0], [3.0]]
                status = "finished" if fresh else "diverged"
                run = make_run(cell, stages, [[1], [1, 2]], images=[100, 200], status=status)
                save_run(tmp_path, run)
                if rescored and fresh:
                    last = end[number][seed] if end else fresh
                    own = {key: both[number][seed] for key, both in measured.items()}
                    draws = {"fresh_scores": [fresh], "last_fresh_scores": [last]}
                    save_rescored(tmp_path, run, **draws, **own)
        record = {"name": "a", "cells": cells, "tests": PAPER, **(plan or {})}
        (tmp_path / "sweep.json").write_text(json.dumps(record))
        return SweepResults(tmp_path)

    return write


def by_claim(results):
    return {answer.claim: answer for answer in answers(results)}


def test_a_clear_difference_supports_a_claim(study):
    results = study(HIGH, LOW)
    found = by_claim(results)[END]
    assert found.verdict == "supported"
    assert (found.found.p, found.corrected) == (2 / 2**7, 2 / 2**7)
    assert found.sentence == (
        "Conventional training ends with a higher score than descending on a: +1.06, 95% interval "
        "+0.898 to +1.22, p = 0.0156 (0.0156 corrected), 7 seeds: supported."
    )
    # epochs do not differ
    epochs = "descending training needs fewer epochs to its peak than conventional"
    assert by_claim(results)[epochs].verdict == "undecided"


@pytest.mark.parametrize(
    ("axes", "second", "others"),
    [
        ({"groups.k": 3}, "descending, groups.k=3", ""),
        ({}, "descending", ""),
        ({"groups.k": 3, "gan.r1": 0.5}, "descending, groups.k=3", ", gan.r1=0.5"),
        (
            {"gan.augment": ["color"], "groups.k": 3},
            "descending, groups.k=3",
            ', gan.augment=["color"]',
        ),
    ],
)
def test_a_claim_on_values_of_an_axis_gets_a_verdict(study, axes, second, others):
    text = f"descending, groups.k=4 > {second} in end_score"
    assert parse_claim(text)[0].text == text
    tests = {"tests": [f"{text} on a{others}"]}
    four = {**axes, "groups.k": 4}
    results = study(HIGH, LOW, mode="descending", axes=(four, axes), plan=tests)
    found = [answer for answer in answers(results) if answer.verdict != "exploratory"]
    assert [answer.sentence for answer in found] == [
        "Descending training with groups.k=4 ends with a higher score than "
        f"{second.replace(', ', ' with ')} on a{others}: +1.06, 95% interval +0.898 to +1.22, "
        "p = 0.0156 (0.0156 corrected), 7 seeds: supported."
    ]


def test_deviations_are_of_paired_differences_in_fresh_scores(study):
    # differences 1.0, 1.1, 1.4 of the kept model, and 1, 2, 3 at the end of training
    ends = ([3.0, 4.0, 5.0], [2.0, 2.0, 2.0])
    results = study([3.0, 3.2, 3.7], [2.0, 2.1, 2.3], end=ends)
    score = parse_claim("conventional > descending in score")
    fewer = parse_claim("descending < conventional in epochs_to_peak")
    assert deviations(results, [*score, *fewer]) == {
        "conventional > descending in kept_score on a": (pytest.approx(0.2082, abs=1e-4), 3),
        "conventional > descending in end_score on a": (1.0, 3),
    }
    assert deviations(results, fewer) == {}


@pytest.mark.parametrize(("seeds", "rescored"), [(1, True), (2, False)])
def test_one_pair_or_none_has_no_deviation(study, seeds, rescored):
    results = study(HIGH[:seeds], LOW[:seeds], rescored=rescored)
    assert deviations(results, parse_claim("conventional > descending in score")) == {}


def test_the_opposite_claim_is_contradicted_and_others_are_exploratory(study):
    claim = "conventional < descending in end_score on a"
    found = by_claim(
        study(
            HIGH,
            LOW,
            plan={"tests": [claim], "later": ["descending > conventional in diversity on a"]},
        )
    )
    assert found["conventional training ends with a lower score than descending"].verdict == (
        "contradicted"
    )
    assert found[END].verdict == found[KEPT].verdict == "exploratory"
    assert found["descending training makes more diverse images than conventional"].verdict == (
        "exploratory"
    )
    assert "corrected" not in found[END].sentence


def test_few_seeds_cannot_decide_which_is_said_once(study):
    results = study(HIGH[:3], LOW[:3])
    found = by_claim(results)[END]
    assert found.verdict == "undecided"
    assert found.sentence.endswith("3 seeds: undecided; 7 seeds would decide it.")
    said = [text for text in remarks(results) if "No verdict is possible" in text]
    assert said == [
        "No verdict is possible with fewer than 6 seeds: the smallest p-value of 3 is 0.25."
    ]
    assert not any("No verdict" in answer.sentence for answer in answers(results))


@pytest.mark.parametrize(("up_to", "said"), [(None, "after correction"), (12, "looks at up to 12")])
def test_what_intervals_p_values_and_seeds_mean_is_said(study, up_to, said):
    results = study(HIGH[:3], LOW[:3], plan={"up_to": up_to})
    assert said in remarks(results)[1]
    assert "with probability 0.8 if" in remarks(results)[2]


def test_scores_without_fresh_noise_decide_nothing(study):
    found = by_claim(study(HIGH, LOW, rescored=False))
    assert found[END].sentence == f"C{END[1:]} on a: not decided: re-score first."
    epochs = found["descending training needs fewer epochs to its peak than conventional"]
    assert epochs.verdict == "undecided"
    assert epochs.found.mean == 0


def test_a_diverged_run_counts_as_the_lowest_score(study):
    found = by_claim(study(HIGH, [*LOW[:6], None]))[END]
    assert found.found.pairs == 7
    assert found.found.mean == pytest.approx((sum(HIGH) - sum(LOW[:6]) - 1.0) / 7)
    assert found.remarks[-1] == "without seeds of collapsed or diverged runs (1): supported"


def test_the_verdict_without_collapsed_runs_is_said(study):
    alike = [[0.0] * 7, [0.95, 0.95, *[0.0] * 5]]
    found = by_claim(study(HIGH, LOW, near_duplicates=alike))[END]
    assert found.verdict == "supported"
    assert found.remarks == (
        "without seeds of collapsed or diverged runs (2): 5 are too few for a verdict",
    )


def test_the_kept_model_says_among_how_many_it_was_chosen(study):
    found = by_claim(study(HIGH, LOW, end=[MIXED, LOW]))
    assert (found[KEPT].verdict, found[END].verdict) == ("supported", "undecided")
    chosen, choosing = found[KEPT].remarks
    assert chosen == "chosen among 3 evaluations against 1"
    assert choosing == "the end of training is undecided: the difference may come from choosing"


def test_a_kept_model_against_the_end_of_training_comes_from_choosing(study):
    found = by_claim(study(HIGH, LOW, end=[LOW, HIGH]))
    assert (found[KEPT].verdict, found[END].verdict) == ("supported", "contradicted")
    assert found[KEPT].remarks[1].endswith("contradicted: the difference comes from choosing")


def test_skewed_differences_are_said(study):
    found = by_claim(study([2.0, 2.1, 2.2, 2.1, 2.3, 2.2, 9.0], [2.0] * 7))
    assert "the differences look skewed" in found[END].remarks


def test_grey_images_have_no_verdict_on_colour(study, tmp_path, save_real):
    claim = "conventional > descending in colour on a"
    chroma = [[20.0, 30.0, 20.0, 30.0, 20.0, 30.0, 20.0], [10.0] * 7]
    results = study(HIGH, LOW, plan={"tests": [claim]}, colour=chroma)
    text = "conventional training has stronger colours than descending"
    assert by_claim(results)[text].verdict == "supported"
    save_real(tmp_path, "a", colour=1.0)
    grey = by_claim(SweepResults(tmp_path))[text]
    assert grey.verdict == "no verdict: the real images have no colour"


def test_a_sequence_of_seeds_decides_at_one_of_its_looks(study):
    plan = {"tests": [f"{END_CLAIM} on a"], "up_to": 12}
    results = study([*HIGH, 0.1], [*LOW, 30.0], plan=plan)
    # Seven equal signs are the first clear look; what comes later changes nothing.
    assert by_claim(results)[END].verdict == "supported"
    assert by_claim(results)[END].remarks[0] == "decided at 7 seeds, the numbers are of all"


def test_a_seed_that_is_not_complete_is_not_looked_at(study, tmp_path):
    plan = {"tests": [f"{END_CLAIM} on a"], "up_to": 12}
    results = study(HIGH, LOW[:6], plan=plan)
    assert by_claim(results)[END].verdict == "undecided"


def test_numbers_of_the_table_are_numbers(study):
    table = claim_table(study(HIGH, LOW))
    read = pd.read_csv(io.StringIO(table.csv()))
    assert (
        read[["seeds", "mean", "low", "high", "p", "corrected p"]]
        .dtypes.map(str)
        .isin(["float64", "int64"])
        .all()
    )
    assert read.set_index("claim")["mean"][END] == pytest.approx((sum(HIGH) - sum(LOW)) / 7)


def test_unplanned_looks_and_what_a_seed_varies_are_said(study):
    said = remarks(study(HIGH, LOW, plan={"looks": ["seeds were added: 5, 7"]}))
    assert said[-1] == (
        "An unplanned look: seeds were added: 5, 7; the level of 0.05 does not hold."
    )
    assert said[0].startswith("A seed varies initial weights, batches and noise, not the images")


def test_middle_group_and_wider_counts(sweep_folder, save_real):
    folder = sweep_folder(seeds=1, length=2)
    save_real(folder, "apples", diversity=60.0)
    save_real(folder, "digits", diversity=40.0)
    found = by_claim(SweepResults(folder))
    middle = found["k-means makes the middle group over 1.5 times as large as each other one"]
    assert (middle.data, middle.verdict) == ("digits", "no")
    assert middle.remarks == ("270 images against 180",)
    wider = found["images more diverse (in pixels) spread wider in feature counts"]
    assert (wider.data, wider.verdict) == ("apples against digits", "no")
