"""A sweep's last step: its runs are re-scored by Ray tasks."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.display import Screen
from harness.plan.settings import Sweep
from harness.records.sweep_results import SweepResults
from harness.runs import rescore, rescore_tasks
from harness.storage.store import Store


class StopScreen(Screen):
    """A screen on which the user sends a signal once one run has been measured."""

    def features(self, what: str, done: int, total: int | None, unit: str = "images") -> None:
        if done:
            signal.raise_signal(signal.SIGINT)


def rescore_runs(folder: Path, screen: Screen | None = None) -> tuple[int, str]:
    """Return how many runs are still to be measured, and what was said."""
    sweep = Sweep.model_validate(
        {
            "name": folder.name,
            "data": {"apples": {"source": "builtin", "set": "apples"}},
            "resources": {"max_concurrent": 1},
        }
    )
    out = io.StringIO()
    left = rescore_tasks.rescore_runs(sweep, Store(str(folder.parent)), 0, screen or Screen(out))
    return left, out.getvalue()


def without_time(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    return {key: record[key] for key in record if key not in ("seconds", "sha256")}


def test_a_task_measures_what_the_command_does_in_one_process(
    ray_session: None, finished_sweep: Callable[..., Path]
) -> None:
    folder = finished_sweep(4)
    assert rescore_runs(folder)[0] == 0
    (path,) = folder.glob("runs/*/rescored.json")
    by_task = without_time(path)
    assert len(by_task["fresh_scores"]) == len(by_task["last_fresh_scores"]) == 5
    path.unlink()
    rescore.rescore(folder)
    assert without_time(path) == by_task


@pytest.mark.guarantee("Faults", "A re-score that is stopped or fails goes on with what is missing")
def test_a_stopped_rescore_continues_and_measures_nothing_twice(
    ray_session: None,
    finished_sweep: Callable[..., Path],
    save_rescored: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = finished_sweep(4, 5, 6, 7)
    runs = SweepResults(folder).runs
    save_rescored(folder, runs[0])
    (path,) = folder.glob("runs/*/rescored.json")
    record = path.read_bytes()  # the runs of this sweep have equal generators
    path.unlink()

    def stand_in(rescoring: Any, of: Any, *_: Any) -> float:
        run, *_ = of
        tries = len(rescoring.store.list(f"tries/{run.run}"))
        rescoring.store.put(f"tries/{run.run}/{tries}", b"")
        if run.cell["seed"] == 7 and not tries:
            raise OSError(28, "No space left on device")
        rescoring.store.put(f"{rescoring.sweep}/runs/{run.run}/rescored.json", record)
        return 2.0

    monkeypatch.setattr(rescore_tasks, "_measure", stand_in)
    assert rescore_runs(folder, StopScreen(io.StringIO()))[0] == 3
    left, said = rescore_runs(folder)
    assert left == 1
    assert "seed7: not re-scored: [Errno 28] No space left on device" in said
    assert rescore_runs(folder)[0] == 0
    tries = [len(Store(str(folder.parent)).list(f"tries/{run.run}")) for run in runs]
    assert tries == [1, 1, 1, 2]
