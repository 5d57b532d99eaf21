"""Tables of thousands of runs: their cost grows with the runs, not with their square."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.run_record import RunRecord
from harness.report import build

SECONDS_A_RUN = 0.1
"""Of a processor, a few for the figures apart; 10,000 runs take less than 20 minutes."""


def write_runs(folder: Path, make_run: Callable[..., RunRecord], count: int) -> Path:
    """The records of so many runs of one evaluation a stage: ten patterns, many seeds."""
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


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_so_many_run_records_become_tables(
    tmp_path: Path, make_run: Callable[..., RunRecord], count: int
) -> None:
    folder = write_runs(tmp_path / "load", make_run, count)
    started = time.process_time()
    build.make(folder)
    seconds = time.process_time() - started
    print(f"{count} run records -> tables, figures and report in {seconds:.0f} s of a processor")
    assert seconds < 30 + SECONDS_A_RUN * count
    text = (folder / "tables" / "tables.md").read_text()
    assert f"{count} of {count} runs finished" in text
    rows = sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("tables/runs-d*.csv"))
    assert rows == count
