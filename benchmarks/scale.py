"""Overhead of the harness: many runs whose trainer only reports, through the real sweep.

    python benchmarks/scale.py [--slots 2]     100 runs of 300 evaluations: some minutes
    python benchmarks/scale.py --long          1,000 runs of 900 evaluations

Store, records, checkpoints, TensorBoard, Tune and screen are the real ones; only training and
scoring are replaced by a number. Prints the overhead of a report and of a run, the driver's
memory on the way, and how long tables take from all the records.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from featgan.staging.progress import Evaluation
from featgan.trainer import StagedTrainer
from harness.cluster import connect
from harness.display import Screen
from harness.plan.grid import expand
from harness.plan.settings import Sweep
from harness.preparation.prepare import prepare_runs
from harness.records.sweep_records import SweepRecord
from harness.report import build
from harness.runs import trial, tune
from harness.runs.status import classify_runs
from harness.storage.store import Store


class Reporter(StagedTrainer):
    """A trainer that trains nothing and draws its scores."""

    def train(self, epochs: int) -> None:
        self.progress.trained(epochs)
        self.gan.steps += epochs

    def evaluate(self) -> Evaluation:
        score = 1.0 + (self.seed + self.progress.epochs_spent) * 7919 % 10_000 / 1000
        evaluation = Evaluation(
            stage=self.progress.stage.number,
            epoch=self.progress.epoch,
            epochs_spent=self.progress.epochs_spent,
            steps=self.gan.steps,
            score=score,
            metrics={},
            **dict.fromkeys(REST, 0.1),
        )
        self.evaluations.append(evaluation)
        return evaluation


REST = ("score_std", "spread", "loss_d", "loss_g", "d_real", "d_fake", "images_per_second")


def report_only(config: dict[str, Any], **rest: Any) -> None:
    """Run Tune's function trainable with the stand-in, in a process of Ray."""
    trial.StagedTrainer = Reporter  # type: ignore[misc]
    trial.trainable(config, **rest)


def main() -> None:
    options = _options()
    tune.trainable = report_only
    with tempfile.TemporaryDirectory(prefix="featgan-scale-") as scratch:
        sweep = _sweep(scratch, options.runs, options.evaluations)
        store, screen = Store(sweep.results), Screen()
        connect.connect(cpus=options.slots)
        grid = prepare_runs(sweep, store, False, screen.features)[: options.runs]
        memory = _Memory()
        started = time.perf_counter()
        tune.run_pending(sweep, classify_runs(store, grid, False), store, 0, screen)
        seconds = time.perf_counter() - started
        memory.done.set()
        connect.shutdown()
        done = classify_runs(store, grid, False).done
        reports = done * 3 * (options.evaluations // 3)
        print(
            f"{done} of {len(grid)} runs, {reports:,} reports, {seconds:.0f} s on {options.slots}"
        )
        print(f"a run    {1000 * seconds * options.slots / done:9.1f} ms of a slot")
        print(f"a report {1000 * seconds * options.slots / reports:9.2f} ms of a slot")
        print("driver's memory after 10, 50, 100 %: " + ", ".join(memory.at(10, 50, 100)) + " MB")
        cells = [cell.as_dict() for cell in expand(sweep)[: len(grid)]]
        record = SweepRecord(
            name=sweep.name, cells=cells, runs=[run.name for run in grid], notes=[]
        )
        store.put(f"{sweep.name}/sweep.json", record.to_json())
        started = time.perf_counter()
        build.make(Path(store.join(sweep.name)))
        print(
            f"tables, figures and report from {done} records: {time.perf_counter() - started:.1f} s"
        )


class _Memory(threading.Thread):
    """Looks at this process's resident memory every second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.done.wait(1):
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append(resident * page / 1e6)

    def at(self, *percents: int) -> list[str]:
        return [f"{self.seen[(len(self.seen) - 1) * percent // 100]:.0f}" for percent in percents]


def _sweep(folder: str, count: int, evaluations: int) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "scale",
            "results": folder,
            "data": {"digits": {"source": "builtin", "set": "digits", "count": 60}},
            "image_size": 32,
            "sample_every": evaluations,
            "features": {"weights": "random", "input_size": 32},
            "gan": {"width": 8, "latent": 8},
            "training": {"stage_epochs": evaluations // 3, "evaluate_every": 1, "batch_size": 16},
            "score": {"classifier": "trained", "trained_on": ["digits"], "count": 20, "splits": 2},
            "grid": {"seed": list(range(-(-count // 3)))},
        }
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="1,000 runs of 900 evaluations")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--slots", type=int, default=2)
    options = parser.parse_args()
    if options.long:
        options.runs, options.evaluations = 1000, 900
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return options


if __name__ == "__main__":
    main()
