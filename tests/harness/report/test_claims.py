"""The paper's claims: supported, contradicted or undecided."""

import pytest

from harness.records.sweep_results import SweepResults
from harness.report.claims import claim_table, verdict
from harness.report.statistics import compare


@pytest.fixture
def folder(tmp_path, make_run, save_run, save_rescored):
    """Outlines and colour in each mode by seed; nothing else differs."""
    measured = {
        "descending": ([12.0, 13.0, 14.0], [0.3, 0.3, 0.3]),
        "ascending": ([9.0, 11.0, 10.0], [0.5, 0.2, 0.3]),
        "conventional": ([10.0, 10.0, 10.0], [0.3, 0.3, 0.3]),
    }
    for mode, (sharp, strong) in measured.items():
        for seed in range(3):
            cell = {"data": "a", "mode": mode, "seed": seed}
            run = make_run(cell, [[2.0, 3.0]], [[1, 2]], images=[100])
            save_run(tmp_path, run)
            save_rescored(tmp_path, run, outlines=sharp[seed], colour=strong[seed])
    return tmp_path


def test_each_claim_has_its_verdict_size_and_seeds(folder):
    rows = {row[0]: row[1:] for row in claim_table(SweepResults.read(folder)).rows}
    assert rows["descending has clearer outlines than conventional"] == [
        "a", "supported, but too few seeds", "+3.000 (+0.516 to +5.484)", 3,
    ]  # fmt: skip
    assert rows["conventional has clearer outlines than ascending"][1] == "undecided"
    assert rows["ascending has stronger colours than conventional"] == [
        "a", "undecided", "+0.0 (-0.3 to +0.4)", 3,
    ]  # fmt: skip
    assert rows["conventional ends with a higher score than descending"][1] == "undecided"


def test_a_claim_of_less_is_supported_by_a_negative_difference():
    fewer = compare([10.0, 20.0, 30.0, 10.0, 20.0, 30.0], [40.0, 45.0, 50.0] * 2)
    assert verdict(fewer, -1) == "supported"
    assert verdict(fewer, 1) == "contradicted"
    assert verdict(compare([10.0, 20.0], [40.0, 50.0]), -1) == "supported, but too few seeds"
    assert verdict(compare([1.0], [9.0]), -1) == "one seed: no verdict"


def test_middle_group_and_wider_counts(sweep_folder, save_real):
    folder = sweep_folder(seeds=1, length=2)
    save_real(folder, "apples", diversity=60.0)
    save_real(folder, "digits", diversity=40.0)
    rows = {row[0]: row[1:] for row in claim_table(SweepResults.read(folder)).rows}
    middle = rows["k-means makes the middle group over 1.5 times each other one"]
    assert middle == ["digits", "contradicted", "1.50 times the larger one", None]
    wider = rows["images more diverse (in pixels) spread wider in feature counts"]
    assert wider[0] == "apples against digits"
