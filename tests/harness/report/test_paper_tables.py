"""The paper's tables, from runs whose numbers are known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from featgan.features.groups import FeatureGroups
from featgan.features.settings import GroupSettings
from harness.records.sweep_records import GroupsRecord
from harness.records.sweep_results import SweepResults
from harness.report.paper_tables import group_tables, run_table, score_table

GROUPS = [[3], [3, 2]]
SCORES, MOVED = [[1.0, 2.0], [3.0]], [None, 7]
IMAGES = [100, 200]


def test_epochs_and_scores_of_the_best_run(tmp_path, make_run, save_run):
    # Peaks, one evaluation each 10 epochs: seed 0 at 20 + 10, seed 1 at 10 + 20.
    scores = {0: [[1.0, 2.0], [2.5, 2.0]], 1: [[1.5, 1.0], [2.0, 2.75]]}
    for seed, values in scores.items():
        cell = {"data": "a", "mode": "descending", "seed": seed}
        save_run(tmp_path, make_run(cell, values, GROUPS, images=IMAGES))
    cell = {"data": "a", "mode": "conventional", "seed": 0}
    save_run(tmp_path, make_run(cell, [[3.0, 1.0]], [[1]], images=[9], status="diverged"))
    (table,) = map(score_table, SweepResults(tmp_path).blocks())
    assert [*table.frame] == ["", "descending", "conventional"]
    assert table.rows == [
        ["epochs to peak", 30, None],
        ["final score", 2.75, None],
        ["sd over splits", 0.05, None],
        ["finished runs", 2, 0],
    ]


def test_modes_not_begun_have_a_column(tmp_path, make_run, save_run):
    cells = [{"data": "a", "mode": mode, "seed": 0} for mode in ("ascending", "descending")]
    save_run(tmp_path, make_run(cells[0], [[2.0]], [[1]], images=IMAGES))
    (tmp_path / "sweep.json").write_text(json.dumps({"name": "s", "cells": cells}))
    (table,) = map(score_table, SweepResults(tmp_path).blocks())
    assert [*table.frame] == ["", "descending", "ascending"]
    assert [table.rows[1], *table.rows[3:]] == [
        ["final score", None, 2.0],
        ["finished runs", None, 1],
    ]


def test_further_axes_get_rows_of_their_own(sweep_folder):
    folder = sweep_folder(
        data_sets=("a",), axes=({"groups.k": 2}, {"groups.k": 3}), seeds=1, length=2
    )
    (table,) = map(score_table, SweepResults(folder).blocks())
    assert [*table.frame][:2] == ["groups.k", ""]
    assert [row[0] for row in table.rows] == ["2"] * 4 + ["3"] * 4


def test_an_axis_shows_its_values_as_in_the_file(sweep_folder):
    axes = (
        {"training.learning_rate": 1e-4, "stages.rewind": False},
        {"training.learning_rate": 0.999},
    )
    folder = sweep_folder(data_sets=("a",), axes=axes, seeds=1, length=2)
    (table,) = map(score_table, SweepResults(folder).blocks())
    assert "| 0.0001 | False | final score |" in table.markdown()
    assert [row[:2] for row in table.rows[4:]] == [["0.999", None]] * 4


def test_two_protocols_stand_in_two_tables(tmp_path, make_run, save_run):
    for seed, protocol in enumerate(["IS n=10", "IS n=20"]):
        cell = {"data": "a", "mode": "ascending", "seed": seed}
        save_run(tmp_path, make_run(cell, [[2.0]], GROUPS, images=IMAGES, protocol=protocol))
    tables = [*map(score_table, SweepResults(tmp_path).blocks())]
    assert [table.key for table in tables] == ["scores-a-protocol1", "scores-a-protocol2"]
    assert [table.notes[0] for table in tables] == ["Score: IS n=10.", "Score: IS n=20."]


def test_groups_show_centroids_and_sizes(sweep_folder):
    results = SweepResults(sweep_folder(seeds=1, length=2))
    table = group_tables(results)[0]
    assert table.rows[0][0] == "centroid, positive features"
    assert [row[-1] for row in table.rows[1:3]] == [table.rows[1][1], table.rows[2][3]]
    assert table.rows[3] == ["images", 180, 270, 150, 600]
    name, *near = table.rows[4]
    assert name == "images within 5 of the next group"
    assert near[2] is None
    assert near[3] == near[0] + near[1] > 0
    assert table.notes[0] == "The largest group is 1.8 times the smallest."
    assert "1 rejected, 2 duplicates" in table.notes[1]
    record = results.data.pop("apples").model_copy(update={"skipped": {"hidden": 1200, ".svg": 3}})
    results.data["apples"] = record
    assert group_tables(results)[0].notes[1].endswith("; files skipped: 3 .svg, 1,200 hidden.")


def test_every_run_is_listed(tmp_path, make_run, save_run):
    cells = [{"data": "a", "mode": "descending", "seed": seed} for seed in range(3)]
    save_run(tmp_path, make_run(cells[0], [[1.0, 2.0], [3.0]], GROUPS, images=IMAGES))
    failed = make_run(cells[1], [[1.0]], GROUPS, images=IMAGES, status="failed", reason="no disk")
    save_run(tmp_path, failed)
    (tmp_path / "sweep.json").write_text(json.dumps({"name": "s", "cells": cells}))
    (runs,) = map(run_table, SweepResults(tmp_path).blocks())
    assert runs.rows == [
        ["a-descending-seed0 ★", "finished", 20, 20, 10, 10, 30, 30, 4000, 0, 3.0, 3.0, 115.0],
        [
            "a-descending-seed1",
            "failed: no disk",
            10,
            10,
            None,
            None,
            10,
            10,
            1000,
            0,
            1.0,
            1.0,
            115.0,
        ],
    ]


def test_images_that_were_ranked_into_a_stage_are_counted(tmp_path, make_run, save_run):
    run = make_run({"data": "a", "mode": "descending", "seed": 0}, SCORES, GROUPS, images=IMAGES)
    stages = [replace(stage, moved=moved) for stage, moved in zip(run.stages, MOVED, strict=True)]
    save_run(tmp_path, run.model_copy(update={"stages": stages}))
    (runs,) = map(run_table, SweepResults(tmp_path).blocks())
    assert [name for name in runs.frame if "stage" in name] == [
        *("stage 1, peak", "stage 1, epochs", "stage 2, peak", "stage 2, epochs", "stage 2, moved")
    ]
    assert runs.frame["stage 2, moved"].tolist() == [7]


def test_real_images_stand_beside_the_modes(sweep_folder, save_real):
    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    save_real(folder, "a", 4.5)
    save_real(folder, "a", 9.0, protocol="IS of another classifier")
    save_real(folder, "b", 9.0)
    (table,) = map(score_table, SweepResults(folder).blocks())
    assert [*table.frame][-2:] == ["conventional", "real images"]
    assert [row[-1] for row in table.rows] == [None, None, None, 4.5, None]
    assert table.rows[3] == ["score of 400 images", None, None, None, 4.5]
    assert table.notes[2].startswith("Real images: 400 that the classifier was not trained on.")


def test_groups_by_another_value_have_its_unit_and_decimals(tmp_path):
    values = np.array([0.1251, 0.13, 0.2, 0.31, 0.4375])
    groups = FeatureGroups.fit(values, GroupSettings(by="edge_density", k=2))
    (tmp_path / "groups").mkdir()
    label = "edge density (share of the pixels)"
    record = GroupsRecord(data="a", label=label, **vars(groups))
    (tmp_path / "groups" / "a-edge_density-kmeans-k2.json").write_bytes(record.to_json())
    (table,) = group_tables(SweepResults(tmp_path))
    assert table.key == "groups-a-edge_density-kmeans-k2"
    assert table.title == "a: feature groups by edge_density, kmeans, k = 2"
    assert table.rows == [
        [f"centroid, {label}", pytest.approx(0.1517), pytest.approx(0.37375), None],
        ["lowest", 0.1251, 0.31, 0.1251],
        ["highest", 0.2, 0.4375, 0.4375],
        ["images", 3, 2, 5],
    ]
    assert "| lowest | 0.125 | 0.310 | 0.125 |" in table.markdown()
