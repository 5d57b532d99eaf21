"""A sweep that adds seeds until its claims are decided, without Ray: runs end at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cluster import connect, preflight
from harness.display import Screen
from harness.plan.grid import Cell, expand
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.preparation import prepare
from harness.records.sweep_records import SweepRecord
from harness.report import build
from harness.runs import rescore_tasks, tune
from harness.sweep import looks, run_sweep

Studied = Callable[..., tuple[int, str]]


def plan(results: Path, seed: object) -> Sweep:
    content = {
        "name": "s",
        "results": str(results),
        "data": {"a": {"source": "builtin", "set": "digits"}},
        "grid": {"mode": ["conventional", "descending"], "seed": seed},
        "verdict": {"claims": ["conventional > descending in end_score"]},
    }
    return Sweep.model_validate(content)


def all_runs(sweep: Sweep) -> list[Run]:
    return [Run("s", cell, "0a1b2c3d", "features/a", "groups", None) for cell in expand(sweep)]


@pytest.fixture
def study(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_run: Callable[..., Any],
    save_run: Callable[..., None],
    save_rescored: Callable[..., None],
) -> Studied:
    """Return a function that runs a sweep whose conventional runs are better by `effect`.

    The call is interrupted at its n-th training or re-score; it returns exit code and screen.
    """

    def study(effect: float, seed: object, interrupted: int = 0) -> tuple[int, str]:
        sweep, steps, out = plan(tmp_path, seed), 0, io.StringIO()

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == interrupted:
                raise KeyboardInterrupt

        def record(cell: Cell) -> Any:
            return make_run(cell.as_dict(), [[2.0, 3.0]], [[1]], images=[100])

        def train(_: Sweep, progress: Any, *__: Any) -> bool:
            for run in progress.pending:
                step()
                save_run(tmp_path / "s", record(run.cell))
            return True

        def rescore(*_: Any) -> int:
            for cell in expand(sweep):
                folder = tmp_path / "s" / "runs" / record(cell).run
                if folder.exists() and not (folder / "rescored.json").exists():
                    step()
                    noise = np.random.default_rng([cell.seed, len(cell.mode)]).normal()
                    score = 3 + 0.1 * noise + effect * (cell.mode == "conventional")
                    fresh = {"fresh_scores": [score], "last_fresh_scores": [score]}
                    save_rescored(tmp_path / "s", record(cell), **fresh)
            return 0

        monkeypatch.setattr(rescore_tasks, "rescore_runs", rescore)
        monkeypatch.setattr(prepare, "prepare_runs", lambda *_: all_runs(sweep))
        monkeypatch.setattr(tune, "run_pending", train)
        return run_sweep(sweep, Screen(out)), out.getvalue()

    monkeypatch.setattr(connect, "connect", lambda **_: connect.Engine(None, 1, 0))
    monkeypatch.setattr(connect, "shutdown", lambda: None)
    monkeypatch.setattr(preflight, "check_cluster", lambda *_, **__: None)
    monkeypatch.setattr(build, "make", lambda folder: (folder / "report.html").write_text(""))
    monkeypatch.setattr(build, "summary", lambda *_: "tables")
    return study


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_a_clear_difference_ends_the_sweep_early(study: Studied, tmp_path: Path) -> None:
    code, said = study(1.0, {"up_to": 12})
    assert code == 0
    assert "s: at most 24 runs" in said
    # 7 of 12 seeds may spend 0.029 of the level; the smallest p of 6 is 0.031, of 7 0.016
    assert said.count("1 claims are undecided") == 1
    assert "a higher score than descending on a: +" in said
    assert said.splitlines()[-1] == "0 claims are undecided"
    record = SweepRecord.model_validate_json((tmp_path / "s" / "sweep.json").read_bytes())
    assert (len(record.cells), record.up_to, record.looks) == (14, 12, [])
    assert len([*(tmp_path / "s" / "runs").iterdir()]) == 14
    before = kept(tmp_path)
    assert study(1.0, {"up_to": 12}) != (0, said)  # it looks at 7 seeds only
    assert kept(tmp_path) == before


def test_no_difference_ends_at_the_limit(study: Studied, tmp_path: Path) -> None:
    code, said = study(0.0, {"up_to": 8})
    assert (code, said.count("1 claims are undecided")) == (0, 3)
    assert len([*(tmp_path / "s" / "runs").iterdir()]) == 16


@pytest.mark.parametrize("step", [1, 12, 13, 20, 24, 25, 27])
def test_interrupted_anywhere_it_goes_on(study: Studied, tmp_path: Path, step: int) -> None:
    study(1.0, {"up_to": 12})
    expected = kept(tmp_path)
    for path in sorted((tmp_path / "s").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(KeyboardInterrupt):
        study(1.0, {"up_to": 12}, interrupted=step)
    assert study(1.0, {"up_to": 12})[0] == 0
    assert kept(tmp_path) == expected


def test_a_limit_that_is_raised_is_an_unplanned_look(study: Studied, tmp_path: Path) -> None:
    study(0.0, {"up_to": 6})
    study(0.0, {"up_to": 7})
    record = SweepRecord.model_validate_json((tmp_path / "s" / "sweep.json").read_bytes())
    (look,) = record.looks
    assert look == "the limit `up_to` was changed after runs had begun"


@pytest.mark.parametrize(
    ("begun", "expected"),
    [((), [6, 7, 8]), ((0, 5), [6, 7, 8]), ((6,), [7, 8]), ((7,), [8])],
)
def test_looks_go_on_at_the_seeds_that_have_begun(
    tmp_path: Path, begun: tuple[int, ...], expected: list[int]
) -> None:
    first = all_runs(plan(tmp_path, [0]))[0]
    runs = [replace(first, cell=replace(first.cell, seed=seed)) for seed in range(8)]
    missing = {run.name for run in runs if run.cell.seed not in begun}
    found = [*looks(runs, missing, 8)]
    assert [len(part) for part in found] == expected
    assert found[0] == runs[: expected[0]]
    assert [*looks(runs, missing, None)] == [runs]
