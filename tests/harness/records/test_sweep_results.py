"""Reading a sweep's folder: order, patterns, best of n, what is missing or broken."""

import json
from math import nan

import pytest

from featgan.errors import UserError
from harness.records.sweep_records import RealRecord
from harness.records.sweep_results import SweepResults, cell_name

GROUPS = [[3], [3, 2]]
IMAGES = [100, 200]


def test_an_absent_or_empty_folder_is_the_users_mistake(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="give the folder of a sweep"):
            SweepResults(folder)


def test_modes_come_in_the_papers_order_and_others_after(sweep_folder):
    folder = sweep_folder(modes=("conventional", "random", "ascending"), seeds=1, length=2)
    assert SweepResults(folder).modes == ["ascending", "conventional", "random"]


def test_best_of_n_is_the_first_of_the_highest_best_scores(tmp_path, make_run, save_run):
    scores = {0: [[2.0], [3.0]], 1: [[4.0], [1.0]], 2: [[1.0], [4.0]], 3: [[9.0], [9.0]]}
    for seed, values in scores.items():
        status = "diverged" if seed == 3 else "finished"
        cell = {"data": "a", "mode": "descending", "seed": seed}
        save_run(tmp_path, make_run(cell, values, GROUPS, images=IMAGES, status=status))
    runs = SweepResults(tmp_path).frame
    assert runs["seed"].tolist() == [0, 1, 2, 3]
    assert runs["best"].tolist() == [False, True, False, False]
    assert runs["counts"].tolist() == [True, True, True, False]


def test_runs_of_two_protocols_are_two_blocks(tmp_path, make_run, save_run):
    for seed, protocol in enumerate(["IS n=10", "IS n=20"]):
        cell = {"data": "a", "mode": "ascending", "seed": seed}
        save_run(tmp_path, make_run(cell, [[2.0]], GROUPS, images=IMAGES, protocol=protocol))
    blocks = SweepResults(tmp_path).blocks()
    assert [(block.data, block.protocol, block.suffix, len(block.runs)) for block in blocks] == [
        ("a", "IS n=10", "-protocol1", 1),
        ("a", "IS n=20", "-protocol2", 1),
    ]


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
def test_a_finished_run_without_a_score_does_not_count(tmp_path, make_run, save_run, score):
    for seed in (0, 1):
        run = make_run({"data": "a", "mode": "m", "seed": seed}, [[2.0]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"best_score": score} if seed else {}))
    (block,) = SweepResults(tmp_path).blocks()
    assert block.finished["seed"].tolist() == [0]
    assert block.by_seed("final_score").columns.tolist() == [0]


def test_real_images_of_two_variants_of_a_data_set_are_not_mixed(
    tmp_path, make_run, save_run, save_real
):
    (tmp_path / "data").mkdir()
    for seed, variant in enumerate(["a.1", "a.2"]):
        record = {"name": "a", "key": f"features/{variant}", "digest": "0a1b", "images": 9}
        (tmp_path / "data" / f"{variant}.json").write_text(json.dumps(record))
        run = make_run({"data": "a", "mode": "m", "seed": seed}, [[2.0]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"data_key": record["key"]}))
        save_real(tmp_path, variant, 4.0 + seed)
        results = SweepResults(tmp_path)
        assert [results.real_of(run).score for run in results.runs] == [4.0, 5.0][: seed + 1]
        (block,) = results.blocks()
        assert (block.real is None) == (seed == 1)


def test_real_images_are_those_of_the_runs_metrics(tmp_path, make_run, save_run, save_real):
    for seed, network in enumerate(["FID vgg16", "FID dino"]):
        run = make_run({"data": "a", "mode": "m", "seed": seed}, [[2.0]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"metrics_protocol": network}))
        save_real(tmp_path, "a", 4.0 + seed)
        path = max((tmp_path / "real").iterdir())
        record = RealRecord.model_validate_json(path.read_bytes())
        of_run = record.model_copy(update={"metrics_protocol": network})
        path.write_bytes(of_run.to_json())
    results = SweepResults(tmp_path)
    assert [results.real_of(run).score for run in results.runs] == [4.0, 5.0]


def test_fresh_scores_and_collapse_of_each_run(tmp_path, make_run, save_run, save_rescored):
    """A run that diverged has the lowest score; one that makes one image alone has collapsed."""
    fresh = [(2.0, 2.2), (2.0, 2.2), (1.01, 1.02), None, None, None]
    scores = [2.5, 2.5, 1.3, 1.01, 2.5, 1.01]
    for seed, (draws, score) in enumerate(zip(fresh, scores, strict=True)):
        status = "diverged" if seed == 5 else "finished"
        cell = {"data": "a", "mode": "m", "seed": seed}
        run = make_run(cell, [[score]], [[1]], images=[1], status=status)
        save_run(tmp_path, run)
        if draws:
            duplicates = 0.6 if seed == 1 else 0.1
            save_rescored(tmp_path, run, fresh_scores=draws, near_duplicates=duplicates)
    frame = SweepResults(tmp_path).frame
    assert frame["fresh"].tolist() == pytest.approx([2.1, 2.1, 1.015, nan, nan, 1], nan_ok=True)
    assert frame["fresh_sd"][0] == pytest.approx(0.2 / 2**0.5)
    assert frame["fresh_last"].tolist() == pytest.approx([1.95] * 3 + [nan, nan, 1], nan_ok=True)
    assert frame["collapsed"].tolist() == [False, True, True, True, False, False]


@pytest.mark.guarantee(
    "Files that are read back",
    "A record of another run, generator or data set is left out and named",
)
def test_real_images_of_another_data_set_are_left_out_and_named(sweep_folder, save_real):
    folder = sweep_folder(seeds=1, length=2)
    save_real(folder, "apples")
    assert [*SweepResults(folder).real_by_name] == ["apples"]
    path = folder / "data" / "apples.json"
    path.write_text(path.read_text().replace('"digest": "0a1b"', '"digest": "0a1c"'))
    results = SweepResults(folder)
    assert results.real == []
    assert ".json: left out: measured of other images" in results.problems[0]


def test_missing_cells_and_broken_files_are_named(sweep_folder):
    folder = sweep_folder(seeds=2, length=2)
    broken = next(folder.glob("runs/apples-descending-seed1-*/run.json"))
    broken.write_text(broken.read_text()[:100])
    outcome = SweepResults(folder)
    assert [cell_name(cell) for cell in outcome.missing] == ["apples-descending-seed1"]
    assert len(outcome.problems) == 1
    assert str(broken) in outcome.problems[0]


def test_of_two_runs_of_one_cell_the_sweeps_own_counts(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "ascending", "seed": 0}
    old = make_run(cell, [[2.0]], GROUPS, images=IMAGES)
    new = old.model_copy(update={"run": "a-new", "updated": "2027-01-01T00:00:00+00:00"})
    for run in (old, new):
        save_run(tmp_path, run)
    outcome = SweepResults(tmp_path)
    assert [run.run for run in outcome.runs] == ["a-new"]
    assert outcome.problems == [f"left out, of other settings than the sweep's: {old.run}"]
    plan = {"name": "x", "cells": [cell], "runs": [old.run]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    assert [run.run for run in SweepResults(tmp_path).runs] == [old.run]


def test_names_show_further_axes():
    cell = {"data": "a", "mode": "ascending", "seed": 0, "groups.k": 4}
    assert cell_name(cell) == "a-ascending-seed0-groups.k=4"


def test_a_run_that_failed_before_its_first_record_is_named(sweep_folder):
    folder = sweep_folder(seeds=1, length=2)
    log = folder / "runs" / "apples-ascending-seed7-0123456789" / "failures.txt"
    log.parent.mkdir()
    log.write_text("2026-01-01T00:00:00+00:00 OSError: first\n2026-01-01T00:01:00+00:00 Boom: x\n")
    (problem,) = [each for each in SweepResults(folder).problems if "seed7" in each]
    assert problem.endswith("Boom: x")
