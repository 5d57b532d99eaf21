"""Reading a sweep's folder: order, patterns, best of n, what is missing or broken."""

import json

import pytest

from featgan.errors import UserError
from harness.records.sweep_results import Outcome, cell_name

GROUPS = [[3], [3, 2]]
IMAGES = [100, 200]


def test_a_folder_that_is_not_there_or_empty_is_the_users_mistake(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="give the folder of a sweep"):
            Outcome.read(folder)


def test_modes_come_in_the_papers_order_and_others_after(sweep_folder):
    folder = sweep_folder(modes=("conventional", "random", "ascending"), seeds=1, length=2)
    assert Outcome.read(folder).modes == ["ascending", "conventional", "random"]


def test_representative_is_the_first_of_the_highest_best_scores(tmp_path, make_run, save_run):
    scores = {0: [[2.0], [3.0]], 1: [[4.0], [1.0]], 2: [[1.0], [4.0]], 3: [[9.0], [9.0]]}
    for seed, values in scores.items():
        status = "diverged" if seed == 3 else "finished"
        cell = {"data": "a", "mode": "descending", "seed": seed}
        save_run(tmp_path, make_run(cell, values, GROUPS, images=IMAGES, status=status))
    (pattern,) = Outcome.read(tmp_path).patterns
    assert [run.cell["seed"] for run in pattern.runs] == [0, 1, 2, 3]
    assert pattern.representative.cell["seed"] == 1
    assert (len(pattern.finished), pattern.planned) == (3, 4)


def test_runs_of_two_protocols_are_two_patterns(tmp_path, make_run, save_run):
    for seed, protocol in enumerate(["IS n=10", "IS n=20"]):
        cell = {"data": "a", "mode": "ascending", "seed": seed}
        save_run(tmp_path, make_run(cell, [[2.0]], GROUPS, images=IMAGES, protocol=protocol))
    blocks = Outcome.read(tmp_path).blocks()
    assert [(data, protocol, len(ps)) for data, protocol, ps in blocks] == [
        ("a", "IS n=10", 1),
        ("a", "IS n=20", 1),
    ]


def test_missing_cells_and_broken_files_are_named(sweep_folder):
    folder = sweep_folder(seeds=2, length=2)
    broken = next(folder.glob("runs/apples-descending-seed1-*/run.json"))
    broken.write_text(broken.read_text()[:100])
    outcome = Outcome.read(folder)
    assert [cell_name(cell) for cell in outcome.missing] == ["apples-descending-seed1"]
    assert len(outcome.problems) == 1
    assert str(broken) in outcome.problems[0]


def test_of_two_runs_of_one_cell_the_sweeps_own_counts(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "ascending", "seed": 0}
    old = make_run(cell, [[2.0]], GROUPS, images=IMAGES)
    new = old.model_copy(update={"run": "a-new", "updated": "2027-01-01T00:00:00+00:00"})
    for run in (old, new):
        save_run(tmp_path, run)
    outcome = Outcome.read(tmp_path)
    assert [run.run for run in outcome.runs] == ["a-new"]
    assert outcome.problems == [f"left out, of other settings than the sweep's: {old.run}"]
    plan = {"name": "x", "cells": [cell], "runs": [old.run]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    assert [run.run for run in Outcome.read(tmp_path).runs] == [old.run]


def test_names_show_further_axes():
    cell = {"data": "a", "mode": "ascending", "seed": 0, "groups.k": 4}
    assert cell_name(cell) == "a-ascending-seed0-groups.k=4"


def test_a_run_that_failed_before_its_first_record_is_named_with_its_last_reason(sweep_folder):
    folder = sweep_folder(seeds=1, length=2)
    log = folder / "runs" / "apples-ascending-seed7-0123456789" / "failures.txt"
    log.parent.mkdir()
    log.write_text("2026-01-01T00:00:00+00:00 OSError: first\n2026-01-01T00:01:00+00:00 Boom: x\n")
    told = [problem for problem in Outcome.read(folder).problems if "seed7" in problem]
    assert len(told) == 1
    assert told[0].endswith("Boom: x")
