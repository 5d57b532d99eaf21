"""Kill what a sweep runs on, give the prescribed command, and find the tables of a quiet sweep.

The prescribed command is at most `ray up` and the same sweep again. Identical means: every
table but its seconds, every evaluation, and every byte of the generators.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rayup import Cluster, await_

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

TINY = (Path(__file__).parent / "tiny.yaml").read_text()
MINUTES = 60.0


@dataclass
class Sweep:
    """One sweep of tiny.yaml into a folder of its own on the shared mount."""

    cluster: Cluster
    name: str

    def __post_init__(self) -> None:
        self.folder = self.cluster.network.shared / self.name / "tiny"
        self.log = self.cluster.network.folder / f"{self.name}.log"
        self.plant()

    def plant(self) -> None:
        """Put the sweep file on the head, as `ray up` does with sweeps/."""
        text = TINY.replace("/srv/results", f"/srv/{self.name}")
        (self.cluster.head.files / f"root/{self.name}.yaml").write_text(text)
        (self.cluster.desk.files / f"root/{self.name}.yaml").write_text(text)

    def start(self) -> subprocess.Popen[bytes]:
        return self.cluster.sweep(f"~/{self.name}.yaml", self.log)

    def finish(self, sweep: subprocess.Popen[bytes] | None = None) -> None:
        """Wait for the end of a sweep, by default a new one; nothing may be left to do."""
        code = (sweep or self.start()).wait(timeout=10 * MINUTES)
        assert code == 0, self.said()

    def said(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def records(self) -> dict[str, dict[str, Any]]:
        """The run records there are, by name."""
        return {
            path.parent.name: json.loads(path.read_bytes())
            for path in sorted(self.folder.glob("runs/*/run.json"))
        }

    def await_under_way(self, sweep: subprocess.Popen[bytes]) -> None:
        """Wait until runs are half done, so that a kill has something to spoil."""

        def half_done() -> bool:
            assert sweep.poll() is None, self.said()
            return any(
                record["status"] == "running" and len(record["evaluations"]) > 2
                for record in self.records().values()
            )

        await_(half_done, "a run is half done", 5 * MINUTES)

    def finished(self) -> dict[str, tuple[str, int]]:
        """When each finished run's record and generator were written."""
        return {
            name: (record["updated"], (self.folder / "runs" / name / WEIGHTS).stat().st_mtime_ns)
            for name, record in self.records().items()
            if record["status"] == "finished"
        }


WEIGHTS = "generator.safetensors"


def outcome(folder: Path) -> dict[str, Any]:
    """All of a sweep's folder that must not depend on what happened to it."""
    found: dict[str, Any] = {}
    for table in sorted(folder.glob("tables/*.csv")):
        rows = list(csv.reader(table.open()))
        timed = {i for i, name in enumerate(rows[0]) if "seconds" in name}
        timed |= {i + 1 for i in timed}  # and their standard deviation
        found[table.name] = [[c for i, c in enumerate(row) if i not in timed] for row in rows]
    for run in sorted(folder.glob("runs/*")):
        record = json.loads((run / "run.json").read_bytes())
        for evaluation in record["evaluations"]:
            del evaluation["images_per_second"]
        found[run.name] = (
            record["status"],
            record["stages"],
            record["evaluations"],
            (run / WEIGHTS).read_bytes(),
        )
    return found


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> dict[str, Any]:
    """The outcome of the same sweep on one machine, the desk, that nobody disturbed."""
    sweep = Sweep(cluster, "undisturbed")
    cluster.desk.run(
        "cd ~/featgan; RAY_ADDRESS=local PYTHONPATH=~/featgan",
        f"{sys.executable} harness/sweep.py ~/undisturbed.yaml",
        timeout=15 * MINUTES,
    )
    found = outcome(sweep.folder)
    assert len([name for name in found if not name.endswith(".csv")]) == 6
    return found


def kill_trial(cluster: Cluster) -> None:
    trials = [pid for worker in cluster.workers for pid in worker.processes("ray::ImplicitFunc")]
    os.kill(trials[0], signal.SIGKILL)


def kill_driver(cluster: Cluster) -> None:
    (driver,) = cluster.head.processes("python harness/sweep.py")
    os.kill(driver, signal.SIGKILL)


def kill_worker(cluster: Cluster) -> None:
    busiest = max(cluster.workers, key=lambda host: len(host.processes("ray::ImplicitFunc")))
    busiest.kill()


def kill_head(cluster: Cluster) -> None:
    cluster.head.kill()


@pytest.fixture
def mended(cluster: Cluster) -> Cluster:
    """The cluster with all its hosts, whatever the test before did to them."""
    dead = [host for host in cluster.network.hosts if not host.is_up]
    for host in dead:
        cluster.network.restart(host)
    if dead:
        cluster.up()
    return cluster


KILLS = {"trial": kill_trial, "driver": kill_driver, "worker": kill_worker, "head": kill_head}


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("trial", "driver", "worker"), id="trial, driver, worker"),
        pytest.param(("trial",), marks=pytest.mark.slow, id="trial"),
        pytest.param(("driver",), marks=pytest.mark.slow, id="driver"),
        pytest.param(("worker",), marks=pytest.mark.slow, id="worker"),
        pytest.param(("head",), marks=pytest.mark.slow, id="head"),
    ],
)
def test_a_disturbed_sweep_ends_like_an_undisturbed_one(
    mended: Cluster, undisturbed: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    cluster, sweep = mended, Sweep(mended, "-".join(kinds))
    running = sweep.start()
    before: dict[str, tuple[str, int]] = {}
    for kind in kinds:
        sweep.await_under_way(running)
        before |= sweep.finished()
        KILLS[kind](cluster)
        if kind == "driver":
            running.wait()
            running = sweep.start()
        if kind == "head":
            running.wait()
            cluster.network.restart(cluster.head)
            cluster.up()
            sweep.plant()
            running = sweep.start()
    if running.wait(timeout=10 * MINUTES):  # runs that failed too often: the same command again
        sweep.finish()
    after = sweep.finished()
    assert {name: after[name] for name in before} == before, "a finished run was done again"
    assert outcome(sweep.folder) == undisturbed
    assert any(record["continued"] for record in sweep.records().values()), sweep.said()
    if kinds == ("trial",):
        again = sweep.finished()
        sweep.finish()
        assert sweep.finished() == again
        assert "6 done, 0 half done, 0 missing" in sweep.said()
