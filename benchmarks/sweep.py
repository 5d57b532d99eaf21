"""How long the runs of a sweep take: ours through Ray, multiprocessing, one after another.

    python benchmarks/sweep.py [--file sweeps/quickstart.yaml] [--slots 2] [--stage-epochs 24]

All three do the same runs, whose data are prepared before, with one thread each. The ideal is
the sum of the runs' own seconds, each measured alone in one process, over the slots: nothing
to start, nobody to wait for, and no other run on the machine's caches. `running` leaves out
what comes before the first run has begun and after the last has ended.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.cluster import connect
from harness.display import Counts, Screen
from harness.plan.load import load
from harness.plan.settings import Sweep
from harness.records.run_record import RunRecord
from harness.storage.store import Store

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Took:
    """Seconds of one way: all of it, and of it the part in which runs ran."""

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
        _prepare(sweep, options.slots)
        alone, seconds = _pool(_copy(sweep, folder, "alone"), 1)
        ways: dict[str, Took] = {
            "one after another": alone,
            "multiprocessing": _pool(_copy(sweep, folder, "pool"), options.slots)[0],
            "featgan": _ours(_copy(sweep, folder, "ours"), options.slots),
        }
    ideal = sum(seconds) / options.slots
    print(
        f"{len(seconds)} runs of {min(seconds):.1f} to {max(seconds):.1f} s, {options.slots} slots"
    )
    print(f"{'':20}{'seconds':>9}{'ideal x':>9}{'running':>9}{'ideal x':>9}")
    print(f"{'ideal':20}{ideal:9.1f}{1:9.2f}{ideal:9.1f}{1:9.2f}")
    for name, took in ways.items():
        parts = (took.all, took.all / ideal, took.running, took.running / ideal)
        print(f"{name:20}" + "".join(f"{part:9.{1 + i % 2}f}" for i, part in enumerate(parts)))


def _ours(sweep: Sweep, slots: int) -> Took:
    """Ray's start and end included."""
    from harness.preparation.prepare import prepare_runs
    from harness.runs import tune

    started = time.perf_counter()
    store, screen = Store(sweep.results), Screen()
    connect.connect(cpus=slots)
    grid = prepare_runs(sweep, store, False, screen.features)
    tune.carry_out(
        grid,
        store,
        sweep.resources,
        gpus_per_run=0,
        sample_every=sweep.sample_every,
        screen=screen,
        counts=Counts(total=len(grid)),
    )
    connect.shutdown()
    took = time.perf_counter() - started
    return Took(took, _running(sweep))


def _pool(sweep: Sweep, slots: int) -> tuple[Took, list[float]]:
    """The same runs in a plain pool of processes, longest first; also each run's seconds."""
    from harness.preparation.prepare import prepare_runs
    from harness.runs import tune

    connect.connect(cpus=slots)
    grid = prepare_runs(sweep, Store(sweep.results), False, Screen().features)
    connect.shutdown()
    started = time.perf_counter()
    todo = [(sweep, run) for run in sorted(grid, key=tune.length, reverse=True)]
    with multiprocessing.get_context("spawn").Pool(slots) as pool:
        seconds = pool.starmap(_carry, todo, chunksize=1)
    return Took(time.perf_counter() - started, _running(sweep)), seconds


def _carry(sweep: Sweep, run: object) -> float:
    """Runs in a process of the pool."""
    from harness.runs import tune
    from harness.runs.trial import Habits, carry

    started = time.perf_counter()
    resources = sweep.resources
    habits = Habits(1, resources.checkpoint_minutes, sweep.sample_every, tune.REPORT_SECONDS)
    quiet: Callable[[object], None] = lambda _: None  # noqa: E731
    carry(run, Store(sweep.results), habits, quiet)  # type: ignore[arg-type]
    return time.perf_counter() - started


def _running(sweep: Sweep) -> float:
    """From the first run's beginning to the last run's end, to the second."""
    records = [
        RunRecord.model_validate_json(path.read_bytes())
        for path in Path(sweep.results, sweep.name, "runs").glob("*/run.json")
    ]
    begun = min(datetime.fromisoformat(record.started) for record in records)
    ended = max(datetime.fromisoformat(record.updated) for record in records)
    return (ended - begun).total_seconds()


def _prepare(sweep: Sweep, slots: int) -> None:
    from harness.preparation.prepare import prepare_runs

    connect.connect(cpus=slots)
    prepare_runs(sweep, Store(sweep.results), False, Screen().features)
    connect.shutdown()


def _copy(sweep: Sweep, folder: Path, name: str) -> Sweep:
    shutil.copytree(folder / "made", folder / name)
    return sweep.model_copy(update={"results": str(folder / name)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, default=ROOT / "sweeps/quickstart.yaml")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--stage-epochs", type=int, help="shorter runs, for a quick look")
    return parser.parse_args()


if __name__ == "__main__":
    main()
