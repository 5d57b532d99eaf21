"""Makespan of a sweep: through Ray, in a plain pool of processes, and one run after another.

    python benchmarks/sweep.py [--file sweeps/quickstart.yaml]     12 short runs: some minutes
    python benchmarks/sweep.py --long                              all runs, as long as they are

All three do the same runs with one thread each, on data that are prepared before. The ideal is the
sum of the runs' own seconds, each measured alone in one process, over the slots. `running` leaves
out the time before the first run starts and after the last one ends.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.cluster import connect
from harness.display import Screen
from harness.plan.load import load
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.preparation.prepare import prepare_runs
from harness.records.run_record import RunRecord
from harness.runs.status import classify_runs
from harness.runs.trial import run_trial
from harness.runs.tune import run_pending
from harness.storage.store import Store

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Took:
    """Seconds of one way: in total, and while runs ran."""

    all: float
    running: float


def main() -> None:
    options = _options()
    sweep = load(options.file)
    training = sweep.training
    if options.stage_epochs:
        training = training.model_copy(update={"stage_epochs": options.stage_epochs})
    resources = sweep.resources.model_copy(
        update={"max_concurrent": options.slots, "cpus_per_run": 1}
    )
    with tempfile.TemporaryDirectory(prefix="featgan-benchmark-") as scratch:
        folder = Path(scratch)
        sweep = sweep.model_copy(
            update={"training": training, "resources": resources, "results": str(folder / "made")}
        )
        connect.connect(cpus=options.slots)
        runs = prepare_runs(sweep, Store(sweep.results), False, Screen().features)[: options.runs]
        connect.shutdown()
        alone, seconds = _pool(_copy(sweep, folder, "alone"), runs, 1)
        ideal = sum(seconds) / options.slots
        shortest, longest = min(seconds), max(seconds)
        print(f"{len(seconds)} runs of {shortest:.1f} to {longest:.1f} s, {options.slots} slots")
        print(f"{'':20}{'seconds':>9}{'ideal x':>9}{'running':>9}{'ideal x':>9}")
        _row("ideal", Took(ideal, ideal), ideal)
        _row("one after another", alone, ideal)
        pool = _pool(_copy(sweep, folder, "pool"), runs, options.slots)[0]
        _row("multiprocessing", pool, ideal)
        _row("featgan", _ours(_copy(sweep, folder, "ours"), options), ideal)


def _row(name: str, took: Took, ideal: float) -> None:
    parts = (took.all, took.all / ideal, took.running, took.running / ideal)
    cells = "".join(f"{part:9.{1 + i % 2}f}" for i, part in enumerate(parts))
    print(f"{name:20}{cells}", flush=True)


def _ours(sweep: Sweep, options: argparse.Namespace) -> Took:
    """Run the sweep through Ray, whose start and end are included."""
    started = time.perf_counter()
    store, screen = Store(sweep.results), Screen()
    connect.connect(cpus=options.slots)
    runs = prepare_runs(sweep, store, False, screen.features)[: options.runs]
    run_pending(sweep, classify_runs(store, runs, False), store, 0, screen)
    connect.shutdown()
    took = time.perf_counter() - started
    return Took(took, _running(sweep))


def _pool(sweep: Sweep, runs: list[Run], slots: int) -> tuple[Took, list[float]]:
    """Run them in a plain pool of processes, longest first; return each run's seconds as well."""
    started = time.perf_counter()
    todo = [(sweep, run) for run in sorted(runs, key=lambda run: run.planned_images, reverse=True)]
    with multiprocessing.get_context("spawn").Pool(slots) as pool:
        seconds = pool.starmap(_carry, todo, chunksize=1)
    return Took(time.perf_counter() - started, _running(sweep)), seconds


def _carry(sweep: Sweep, run: Run) -> float:
    """Carry out a run in a process of the pool; return its seconds."""
    started = time.perf_counter()
    run_trial(run, Store(sweep.results), sweep, lambda _: None)
    return time.perf_counter() - started


def _running(sweep: Sweep) -> float:
    """Return the whole seconds from the first run's beginning to the last run's end."""
    records = [
        RunRecord.model_validate_json(path.read_bytes())
        for path in Path(sweep.results, sweep.name, "runs").glob("*/run.json")
    ]
    begun = min(datetime.fromisoformat(record.started) for record in records)
    ended = max(datetime.fromisoformat(record.updated) for record in records)
    return (ended - begun).total_seconds()


def _copy(sweep: Sweep, folder: Path, name: str) -> Sweep:
    shutil.copytree(folder / "made", folder / name)
    return sweep.model_copy(update={"results": str(folder / name)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, default=ROOT / "sweeps/quickstart.yaml")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--stage-epochs", type=int, default=2, help="of shortened runs")
    parser.add_argument("--long", action="store_true", help="all runs, as long as the file says")
    options = parser.parse_args()
    if options.long:
        options.runs = options.stage_epochs = None
    return options


if __name__ == "__main__":
    main()
