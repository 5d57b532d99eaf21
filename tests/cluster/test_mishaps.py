"""Faults of one worker: no mount, a full disk, late arrival."""

from __future__ import annotations

from typing import Any

import pytest
from outcome import outcome
from polling import await_
from rayup import Cluster
from tinysweep import MINUTES, TRIAL, Sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(5400)]


def test_a_mount_that_a_worker_lacks_is_named_before_any_run(healthy: Cluster) -> None:
    sweep, worker = Sweep(healthy, "unmounted"), healthy.workers[0]
    worker.run("mount -t tmpfs tmpfs /srv")
    try:
        code = sweep.start().wait(timeout=15 * MINUTES)
    finally:
        worker.run("umount /srv")
    assert code == 2, sweep.said()
    assert f"node worker1 ({worker.address}) cannot use the storage /srv/unmounted" in sweep.said()
    assert "worker2" not in sweep.said()
    assert not (sweep.folder / "runs").exists()


@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends with "
    "the same bytes",
)
@pytest.mark.slow
def test_a_full_disk_fails_only_its_run_with_the_reason(
    healthy: Cluster, undisturbed: dict[str, Any]
) -> None:
    sweep = Sweep(healthy, "full")
    victim = next(name for name in undisturbed if name.startswith("digits-ascending"))
    (sweep.folder / "runs" / victim).mkdir(parents=True)
    full = f"/srv/full/tiny/runs/{victim}"
    for worker in healthy.workers:
        worker.run(f"mount -t tmpfs -o size=100k tmpfs {full}")
    try:
        code = sweep.start().wait(timeout=30 * MINUTES)
    finally:
        for worker in healthy.workers:
            worker.run(f"umount --lazy {full}")
    assert code == 1, sweep.said()
    reasons = (sweep.folder / "runs" / victim / "failures.txt").read_text()
    assert "No space left on device" in reasons
    assert {*sweep.finished()} == {name for name in undisturbed if "-seed" in name} - {victim}
    assert victim.rpartition("-")[0] in (sweep.folder / "tables/tables.md").read_text()
    sweep.finish()
    assert outcome(sweep.folder) == undisturbed


@pytest.mark.slow
def test_a_worker_that_joins_late_gets_runs(healthy: Cluster, undisturbed: dict[str, Any]) -> None:
    late = healthy.workers[1]
    late.run(". ~/.featgan; ray stop --force")
    healthy.await_nodes(2)
    sweep = Sweep(healthy, "late")
    running = sweep.start()
    sweep.await_under_way(running)
    late.run(f". ~/.featgan; ray start --address={healthy.head.address}:6379")
    await_(lambda: late.processes(TRIAL), "a run on the late worker", 15 * MINUTES)
    sweep.finish(running)
    assert outcome(sweep.folder) == undisturbed
