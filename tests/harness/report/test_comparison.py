"""Two sweeps side by side."""

import pytest

from harness.records.sweep_results import SweepResults, dotted
from harness.report.comparison import comparison


def sweep(folder, make_run, save_run, scores, protocol, width):
    for seed, score in enumerate(scores):
        cell = {"data": "a", "mode": "ascending", "seed": seed}
        run = make_run(cell, [[score]], [[1]], images=[9], protocol=protocol)
        save_run(folder, run.model_copy(update={"settings": {"gan": {"width": width}}}))
    return SweepResults(folder)


def test_means_differences_and_settings(tmp_path, make_run, save_run):
    a = sweep(tmp_path / "a", make_run, save_run, [1.0, 2.0], "IS n=10", 16)
    b = sweep(tmp_path / "b", make_run, save_run, [2.0, 4.0, 6.0], "IS n=10", 32)
    scores, settings = comparison(a, b)
    (row,) = scores.rows
    assert row[:7] == ["ascending", 2, 1.5, 10, 3, 4.0, 10]
    assert row[7:] == pytest.approx([2.5, 5.5 / 6, 0.3718, 0.9945], abs=1e-4)
    assert settings.rows == [["gan.width", "16", "32"]]


def test_two_protocols_are_not_compared(tmp_path, make_run, save_run):
    a = sweep(tmp_path / "a", make_run, save_run, [1.0], "IS n=10", 16)
    b = sweep(tmp_path / "b", make_run, save_run, [2.0], "IS n=20", 16)
    tables = comparison(a, b)
    assert [table.notes[0].partition(".")[0] for table in tables] == [
        "Score: IS n=10",
        "Score: IS n=20",
    ]
    ours, theirs = (table.rows for table in tables)
    assert ours == [["ascending", 1, 1.0, 10, 0, None, None, None, None, None, None]]
    assert theirs == [["ascending", 0, None, None, 1, 2.0, 10, None, None, None, None]]


def test_settings_by_dotted_keys():
    assert dict(dotted({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == {
        "a.b": 1, "a.c.d": [2], "e": None,
    }  # fmt: skip
