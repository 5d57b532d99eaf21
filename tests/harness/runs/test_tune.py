"""The runs of a sweep through the real Tune, with a stand-in for the trial."""

from __future__ import annotations

import io
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.error import TuneError

from harness.cli import install_signal_handlers
from harness.display import Counts, Screen
from harness.plan.grid import Cell
from harness.plan.run import Run
from harness.plan.settings import Method, Sweep
from harness.runs import callback
from harness.runs import tune as module
from harness.runs.callback import ProgressCallback
from harness.runs.status import SweepProgress
from harness.storage.store import Store

ENDED = {"share": 1.0, "best_score": 2.0, "protocol": "IS", "outcome": "score 1.500"}
"""The last report of a run."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def a_run(mode: Any, seed: int = 0) -> Run:
    training = {"stage_epochs": 4, "evaluate_every": 1}
    cell = Cell("a", mode, seed, Method.model_validate({"training": training}))
    return Run("s", cell, f"0{seed}", "features/a", "s/groups/a.json", None, images=192)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_pending(
    todo: list[Run], store: Store, out: io.StringIO | None = None, **resources: Any
) -> tuple[bool, Counts, str]:
    resources.setdefault("max_concurrent", 1)
    screen, progress = Screen(out := out or io.StringIO()), SweepProgress(len(todo))
    progress.missing += todo
    if out.isatty():
        screen.features("a", 1, 2)  # what is live before the first run
    sweep = Sweep.model_validate(
        {"name": "s", "data": {"a": {"source": "builtin", "set": "digits"}}, "resources": resources}
    )
    completed = module.run_pending(sweep, progress, store, 0, screen)
    return completed, progress, out.getvalue()


def test_longest_first_in_one_process_and_failures_are_reported(
    ray_session: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(config: dict[str, Any], store: Store, **_: Any) -> None:
        name = config["run"]
        tries = len(store.list(f"tries/{name}"))
        place = len(store.list("tries"))
        store.put(f"tries/{name}/{tries}", f"{place} {os.getpid()}".encode())
        if "seed7" in name:
            raise OSError(28, "No space left on device", "/mnt/run.json")
        tune.report(ENDED | {"best_score": 2.0 + tries})

    monkeypatch.setattr(module, "trainable", stand_in)
    short, doomed, *long = [
        a_run("ascending", 1),
        a_run("ascending", 7),
        a_run("conventional", 2),
        a_run("conventional", 3),
    ]
    completed, counts, said = run_pending([short, doomed, *long], store, max_failures=1)

    tries = {key: store.get(key).decode().split() for key in store.list("tries")}
    order = sorted(tries, key=lambda key: int(tries[key][0]))
    assert order == [
        *(f"tries/{run.name}/0" for run in (*long, short, doomed)),
        f"tries/{doomed.name}/1",
    ]
    assert len({tries[key][1] for key in order[:4]}) == 1, "one process for runs that do not fail"

    assert completed
    assert (counts.done, counts.failed, counts.running) == (3, 1, {})
    assert counts.share == pytest.approx((12 + 12 + 8) / 40)
    reason = "OSError: [Errno 28] No space left on device: '/mnt/run.json'"
    assert [line for line in said.splitlines() if line.endswith("of 4 runs)")] == [
        f"{run.cell.label}: score 1.500 ({n} of 4 runs)" for n, run in enumerate([*long, short], 1)
    ]
    assert said.count(f"{doomed.cell.label}: {reason}\n") == 1
    assert said.count(f"{doomed.cell.label}: {reason}; trying again\n") == 1
    logged = store.get(f"{doomed.folder}/failures.txt").decode().splitlines()
    assert [line.partition(" ")[2] for line in logged] == [reason, reason]


@pytest.mark.guarantee("Exposure", "Keys of the environment appear in no log of Ray or Tune")
def test_the_keys_of_a_bucket_are_not_written_into_logs(
    ray_session: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune hands them to its trials, and Ray logs what it hands on."""

    def stand_in(config: dict[str, Any], **_: Any) -> None:
        tune.report(ENDED)

    monkeypatch.setattr(module, "trainable", stand_in)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    run_pending([a_run("ascending")], store)
    session = Path(ray.get_runtime_context().get_session_name())
    logs = [p for p in Path("/tmp/ray", session).rglob("*") if p.is_file()]
    assert any(b"PL_DISABLE_FORK" in log.read_bytes() for log in logs), "what Tune hands on"
    assert not any(b"wJalrXUtnFEMI" in log.read_bytes() for log in logs)


def test_runs_continue_after_tune_itself_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does, without any result, where a node's memory monitor killed a trial."""
    todo = [a_run("ascending", seed) for seed in (0, 1)]
    asked = []

    def fit(sweep: Sweep, runs: list[Run], *_: Any) -> None:
        asked.append([run.name for run in runs])
        if len(asked) < 3:
            raise (RuntimeError, TuneError)[len(asked) % 2]("The actor died\nsomewhere")

    monkeypatch.setattr(module, "_fit", fit)
    completed, _, said = run_pending(todo, store, max_failures=2)
    assert completed
    assert asked == [[run.name for run in todo]] * 3
    assert said == "Tune stopped: The actor died\n" * 2

    asked.clear()
    _, _, said = run_pending(todo, store, max_failures=1)
    assert len(asked) == 2
    assert said == "Tune stopped: The actor died\n" * 2


def test_a_reason_that_cannot_be_recorded_ends_no_other_run(
    ray_session: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Store, run: Run, reason: str) -> None:
        raise OSError(122, "Disk quota exceeded")

    def stand_in(config: dict[str, Any], **_: Any) -> None:
        if "seed7" in config["run"]:
            raise ValueError("spoilt")
        tune.report(ENDED)

    monkeypatch.setattr(module, "trainable", stand_in)
    monkeypatch.setattr(callback, "record_failure", full)
    todo = [a_run("conventional", 7), a_run("ascending", 1)]
    completed, counts, said = run_pending(todo, store, max_failures=0)
    assert completed
    assert (counts.done, counts.failed) == (1, 1)
    assert f"{todo[0].cell.label}: ValueError: spoilt" in said
    assert "the reason cannot be recorded: [Errno 122] Disk quota exceeded" in said
    assert "Tune stopped" not in said


def test_ctrl_c_with_failing_storage_is_reported(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(key: str, data: bytes) -> None:
        raise OSError(122, "Disk quota exceeded")

    screen = Screen(out := io.StringIO())
    watch = ProgressCallback(SweepProgress(0), store, screen)
    monkeypatch.setattr(store, "put", full)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    with module.stop_on_signals(partial(module._ask_to_stop, store, "s/stop", watch, screen)):
        signal.raise_signal(signal.SIGINT)
        assert watch.stopped
        assert "runs cannot be asked to stop: [Errno 122] Disk quota exceeded" in out.getvalue()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.guarantee(
    "Faults",
    "Ctrl-C, SIGTERM or a closed terminal (not under `nohup`) lets runs save themselves",
)
def test_a_closed_terminal_asks_once_and_under_nohup_not_at_all(store: Store) -> None:
    numbers = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
    before = {number: signal.getsignal(number) for number in numbers}
    screen = Screen(io.StringIO())
    try:
        for handler, asked in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            install_signal_handlers()
            store.delete("s/stop")
            watch = ProgressCallback(SweepProgress(0), store, screen)
            ask = partial(module._ask_to_stop, store, "s/stop", watch, screen)
            with module.stop_on_signals(ask):
                for _ in range(2):
                    signal.raise_signal(signal.SIGHUP)
            assert store.exists("s/stop") == watch.stopped == asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_sweep_runs_where_a_terminal_looks_on(
    ray_session: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune pickles its callbacks at its start: with what is live, at first, it could not."""

    def stand_in(config: dict[str, Any], store: Store, **_: Any) -> None:
        for share in (0.25, 1.0):
            tune.report(ENDED | {"share": share})
            time.sleep(0.5)

    monkeypatch.setattr(module, "trainable", stand_in)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    todo = [a_run("ascending", seed) for seed in (0, 1)]
    completed, counts, shown = run_pending(todo, store, out)
    assert completed
    assert counts.done == 2
    assert "run under way" in shown
    assert todo[0].cell.label in shown
    assert todo[0].name not in shown
    assert "25%" in shown


def test_a_conventional_run_is_longer_than_a_staged_one() -> None:
    # Three stages of four epochs on all the data; or on one, two and three thirds of it.
    conventional, ascending = a_run("conventional"), a_run("ascending")
    assert conventional.planned_images / ascending.planned_images == pytest.approx(12 / 8)
    longer = replace(ascending, images=3 * ascending.images)
    assert longer.planned_images == 3 * ascending.planned_images


def test_time_left_of_continued_runs_is_from_where_they_continue(store: Store) -> None:
    todo = [a_run("conventional", seed) for seed in (0, 1)]
    first, second = (SimpleNamespace(config={"run": run.name}) for run in todo)
    progress = SweepProgress(2, unfinished=todo[:1], missing=todo[1:], shares={todo[0].name: 0.9})
    watch = ProgressCallback(progress, store, Screen(io.StringIO()))

    def reported(trial: Any, share: float) -> float:
        result = {"share": share, "best_score": 1.5, "protocol": "IS"}
        watch.on_trial_result(0, [], trial, result)
        return progress.share

    # 0.1 and 1 of a run are left
    assert reported(first, 0.95) == pytest.approx(0.05 / 1.1)
    assert reported(second, 0.5) == pytest.approx(0.55 / 1.1)


def test_the_best_score_so_far_includes_earlier_calls() -> None:
    counts = Counts(total=2)
    counts.add_score(2.5, "a", "IS x")
    counts.add_score(1.5, "b", "IS x")
    counts.add_score(None, "c", "IS x")
    assert counts.best == "2.500 (a; IS x)"
