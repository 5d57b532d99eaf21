"""Kill what a sweep runs on, run it again, and compare with an undisturbed sweep.

At most `ray up` and the same sweep are run again. Compared are all tables except their seconds,
all evaluations, and all bytes of the generators.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from outcome import outcome
from rayup import Cluster
from tinysweep import MINUTES, TRIAL, Sweep

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(5400),
    pytest.mark.guarantee(
        "Faults", "After a lost run, driver, worker or head, a sweep ends like an undisturbed one"
    ),
]


def kill_trial(cluster: Cluster) -> None:
    trials = [pid for worker in cluster.workers for pid in worker.processes(TRIAL)]
    os.kill(trials[0], signal.SIGKILL)


def kill_driver(cluster: Cluster) -> None:
    (driver,) = cluster.head.processes("python harness/sweep.py")
    os.kill(driver, signal.SIGKILL)


def kill_worker(cluster: Cluster) -> None:
    busiest = max(cluster.workers, key=lambda host: len(host.processes(TRIAL)))
    busiest.kill()


def kill_head(cluster: Cluster) -> None:
    cluster.head.kill()


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
    healthy: Cluster, undisturbed: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    cluster, sweep = healthy, Sweep(healthy, "-".join(kinds))
    running = sweep.start()
    sweep.await_counting(running)
    sweep.await_runs(running)
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
    if running.wait(timeout=30 * MINUTES):  # runs that failed too often: the same command again
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


@pytest.mark.slow
def test_a_worker_lost_while_it_counts_costs_no_count(
    healthy: Cluster, undisturbed: dict[str, Any]
) -> None:
    sweep = Sweep(healthy, "counting")
    running = sweep.start()
    sweep.await_counting(running)
    healthy.workers[0].kill()
    sweep.finish(running)
    assert outcome(sweep.folder) == undisturbed
