"""Tables of thousands of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.run_record import RunRecord
from harness.report import build


def write_runs(folder: Path, make_run: Callable[..., RunRecord], count: int) -> Path:
    """Write the records of `count` runs with one evaluation a stage: ten patterns, many seeds."""
    cells = []
    for number in range(count):
        mode = ("descending", "ascending", "conventional", "random", "middle_out")[number % 5]
        cell = {"data": f"d{number // 5 % 2}", "mode": mode, "seed": number // 10}
        cells.append(cell)
        scores = [[1 + number % 97 / 10], [2 + number % 89 / 10]]
        run = make_run(cell, scores, [[1], [1, 2]], images=[5, 9])
        home = folder / "runs" / run.run
        home.mkdir(parents=True)
        (home / "run.json").write_bytes(run.to_json())
    (folder / "sweep.json").write_text(json.dumps({"name": "load", "cells": cells, "notes": []}))
    return folder


@pytest.mark.guarantee("Load", "10,000 run records become tables in minutes (200 if not slow)")
@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_thousands_of_run_records_become_tables(
    tmp_path: Path, make_run: Callable[..., RunRecord], count: int
) -> None:
    folder = write_runs(tmp_path / "load", make_run, count)
    build.make(folder)
    text = (folder / "tables" / "tables.md").read_text()
    assert f"{count} of {count} runs finished" in text
    rows = sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("tables/runs-d*.csv"))
    assert rows == count
