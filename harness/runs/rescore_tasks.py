"""The last step of a sweep: its finished runs are re-scored, each by one Ray task.

What is measured is in a run's folder, so the next call measures what is missing.
"""

from collections.abc import Mapping
from functools import partial
from itertools import islice

import ray
import torch
from ray import ObjectRef

from featgan.errors import first_line
from harness.cluster import connect, preflight
from harness.display import Screen
from harness.plan.grid import expand
from harness.plan.settings import Sweep
from harness.records.run_record import RunRecord
from harness.records.sweep_records import RealRecord, Rescored
from harness.records.sweep_results import SweepResults, cell_name
from harness.runs.rescore import Rescoring
from harness.runs.tune import stop_on_signals
from harness.storage.local_copy import mirrored
from harness.storage.store import Store

AT_ONCE = 1000
"""Largest number of tasks that Ray is given at a time."""
WHAT_FOR = "re-scoring with noise that chose no peak, for the verdicts"


def find_unscored(
    sweep: Sweep, store: Store, gpu: bool
) -> tuple[Rescoring, SweepResults, list[RunRecord]]:
    """Return how runs are measured, the results so far, and the finished runs without a measure."""
    with mirrored(store, sweep.name) as folder:
        results = SweepResults(folder)
    networks = {cell.method.gan.network for cell in expand(sweep)}
    rescoring = Rescoring(store, sweep.name, "cuda" if gpu else "cpu", networks)
    return rescoring, results, rescoring.missing(results)


def rescore_runs(sweep: Sweep, store: Store, gpus_per_run: float, screen: Screen) -> int:
    """Measure the finished runs that have not been; return how many are still to be measured.

    A task has the resources of a run. One that fails is reported, and the others go on. At the
    first Ctrl-C all end at once, as nothing of a measurement is kept; the second raises
    KeyboardInterrupt.
    """
    rescoring, results, missing = find_unscored(sweep, store, gpus_per_run > 0)
    threads = sweep.resources.cpus_per_run
    waiting, at_once = iter(missing), sweep.resources.max_concurrent or AT_ONCE
    running: dict[ObjectRef[float], RunRecord] = {}
    ended, left = 0, len(missing)
    say = partial(screen.say, "stopping: the next call measures what is missing")
    task = ray.remote(_measure).options(
        num_cpus=threads, num_gpus=gpus_per_run, max_retries=sweep.resources.max_failures
    )
    if missing:
        connect.await_room({"CPU": threads, "GPU": gpus_per_run}, screen.features)
    with stop_on_signals(say) as stopped:
        while not stopped.is_set():
            for run in islice(waiting, at_once - len(running)):
                before = results.rescored.get(run.run)
                of = run, results.held_out(run), results.real_of(run), before
                running[task.remote(rescoring, of, threads, preflight.versions())] = run
            if not running:
                break
            for reference in ray.wait([*running], timeout=1.0)[0]:
                run, ended = running.pop(reference), ended + 1
                try:
                    ray.get(reference)
                    left -= 1
                except Exception as error:  # also of the storage, or of a node that was lost
                    cause = getattr(error, "cause", None) or error
                    screen.say(f"{cell_name(run.cell)}: not re-scored: {first_line(cause)}")
            screen.features(WHAT_FOR, ended, len(missing), "runs")
    for reference in running:
        ray.cancel(reference)
    return left


def _measure(
    rescoring: Rescoring,
    of: tuple[RunRecord, float, RealRecord | None, Rescored | None],
    threads: int,
    versions: Mapping[str, str],
) -> float:
    """Measure a run on a node that is fit for it, as its trial was."""
    key, gpu = rescoring.file(of[0], "run.json"), rescoring.device == "cuda"
    preflight.check_this_node(rescoring.store, key, versions, [], gpu)
    torch.set_num_threads(threads)
    return rescoring.measure(*of)
