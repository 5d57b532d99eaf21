"""A sweep of tiny.yaml on the cluster."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outcome import records
from polling import await_
from rayup import Cluster

from featgan.sample import GENERATOR

TINY = (Path(__file__).parent / "tiny.yaml").read_text()
MINUTES = 60.0


@dataclass
class Sweep:
    """A sweep of tiny.yaml into its own folder on the shared mount."""

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
        """Wait for the end of a sweep, by default a new one, that leaves nothing to do."""
        code = (sweep or self.start()).wait(timeout=30 * MINUTES)
        assert code == 0, self.said()

    def said(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the run records by name."""
        return records(self.folder)

    def await_counting(self, sweep: subprocess.Popen[bytes]) -> None:
        """Wait until every worker counts features."""

        def both() -> bool:
            assert sweep.poll() is None, self.said()
            return all(worker.processes(COUNTER) for worker in self.cluster.workers)

        await_(both, "all workers count", 10 * MINUTES)
        assert not [*self.folder.parent.glob("features/*/dataset.json")], "already counted"

    def await_runs(self, sweep: subprocess.Popen[bytes]) -> None:
        """Wait until a run has started on every worker."""
        workers = {worker.name for worker in self.cluster.workers}

        def everywhere() -> bool:
            assert sweep.poll() is None, self.said()
            machines = [machine for each in self.records().values() for machine in each["machines"]]
            return {machine.partition(":")[0] for machine in machines} == workers

        await_(everywhere, "runs land on all workers", 10 * MINUTES)

    def await_under_way(self, sweep: subprocess.Popen[bytes]) -> None:
        """Wait until a run is half done and its process is running, so that a kill interrupts it.

        The record of a killed run stays `running`, so only records written after this call count.
        """
        called = datetime.now(UTC).isoformat(timespec="seconds")

        def half_done() -> bool:
            assert sweep.poll() is None, self.said()
            at_work = any(host.processes(TRIAL) for host in self.cluster.workers if host.is_up)
            return at_work and any(
                record["status"] == "running"
                and record["updated"] > called
                and len(record["evaluations"]) > 2
                for record in self.records().values()
            )

        await_(half_done, "a run is half done", 20 * MINUTES)

    def finished(self) -> dict[str, tuple[str, int]]:
        """Return the times at which each finished run's record and generator were written."""
        return {
            name: (record["updated"], (self.folder / f"runs/{name}/{GENERATOR}").stat().st_mtime_ns)
            for name, record in self.records().items()
            if record["status"] == "finished"
        }


TRIAL = "ray::ImplicitFunc"
"""Name of Ray's processes that carry runs."""
COUNTER = "ray::MapWorker"
"""Name of Ray Data's actors, which count features in a sweep."""
