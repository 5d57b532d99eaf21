"""The runs of a sweep as concurrent Ray Tune trials.

Tune schedules, places and retries. Which runs are done is read from their records alone;
Tune's own state is discarded.
"""

import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event

from ray import tune
from ray.tune.error import TuneError
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from featgan.errors import first_line
from harness.cluster.connect import what_is_missing
from harness.cluster.preflight import functions, versions
from harness.display import Screen
from harness.plan.run import Run
from harness.plan.settings import Pilot, Sweep
from harness.runs.callback import ProgressCallback, trial_name
from harness.runs.status import SweepProgress, classify_runs
from harness.runs.trial import trainable
from harness.storage.store import Store


def run_pending(
    sweep: Sweep, progress: SweepProgress, store: Store, gpus_per_run: float, screen: Screen
) -> bool:
    """Run the pending runs, longest first; return False if the user stopped them.

    Failed runs are tried again `max_failures` times, from their checkpoints; the outcome of each
    run is in its record. The first Ctrl-C asks all runs to checkpoint and stop, the second ends
    them.
    """
    if not (pending := progress.pending):
        return True
    # Tune ends its trials at Ctrl-C; ours are asked to checkpoint first.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the callback reports failures
    # Tune would pass keys from the driver to its trials, and Ray write them into its logs; nodes
    # have their own: preflight has checked it.
    passed = class_cache.ENV_VARS_TO_PROPAGATE
    passed -= {name for name in passed if name.startswith("AWS_")}
    store.delete(stop_key := pending[0].stop_key)
    request = {"CPU": sweep.resources.cpus_per_run, "GPU": gpus_per_run}
    progress.waiting = partial(what_is_missing, request)
    callback = ProgressCallback(progress, store, screen, sweep.pilot is not None)
    with stop_on_signals(partial(_ask_to_stop, store, stop_key, callback, screen)):
        # Tune itself fails when the memory monitor of a cluster's node kills a trial.
        for _ in range(sweep.resources.max_failures + 1):
            try:
                _fit(sweep, pending, store, gpus_per_run, callback)
                break
            except (RuntimeError, TuneError) as error:
                screen.say(f"Tune stopped: {first_line(error)}")
                pending = classify_runs(store, pending, sweep.pilot is not None).pending
                progress.running.clear()
                progress.done, progress.failed = progress.total - len(pending), 0
                if not pending:
                    break
    store.delete(stop_key)
    return not callback.stopped


def _fit(
    sweep: Sweep, runs: list[Run], store: Store, gpus_per_run: float, callback: ProgressCallback
) -> None:
    """Run one Tune experiment."""
    resources = sweep.resources.model_copy(update={"gpus_per_run": gpus_per_run})
    runs = sorted(runs, key=lambda run: run.planned_images, reverse=True)
    names = {name for run in runs for name in run.cell.functions}
    names -= {run.cell.method.groups.method for run in runs}  # the driver groups the images
    with tempfile.TemporaryDirectory(prefix="featgan-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    trainable,
                    runs={run.name: run for run in runs},
                    store=store,
                    sweep=sweep.model_copy(update={"resources": resources}),
                    versions=versions() | functions(names),
                ),
                {"cpu": resources.cpus_per_run, "gpu": gpus_per_run},
            ),
            param_space={"run": tune.grid_search([run.name for run in runs])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.max_concurrent,
                scheduler=_asha(sweep.pilot, runs) if sweep.pilot else None,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[callback],
                stop=callback,
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            ),
        ).fit()


def _asha(pilot: Pilot, runs: list[Run]) -> TrialScheduler:
    """Return the scheduler that stops a pilot's runs that are behind others (Li et al. 2020)."""
    return ASHAScheduler(
        time_attr="epochs",
        metric="best_score",
        mode="max",
        grace_period=pilot.grace,
        reduction_factor=pilot.keep_one_in,
        max_t=1 + max(stage.epochs for run in runs for stage in run.cell.stages),
    )


def _ask_to_stop(store: Store, key: str, callback: ProgressCallback, screen: Screen) -> None:
    """Ask all runs to save themselves."""
    callback.stopped = True
    with callback.report_storage_errors("runs cannot be asked to stop"):
        store.put(key, b"")
    screen.say("stopping: runs save themselves at their next evaluation (again: at once)")


@contextmanager
def stop_on_signals(ask: Callable[[], None]) -> Iterator[Event]:
    """Call `ask` at the first signal to stop; raise KeyboardInterrupt at the second.

    Yields the event that is set once a signal has come. A terminal that closes never counts as the
    second: the shell and the kernel both send SIGHUP.
    """
    asked = Event()

    def stop(number: int, _: object) -> None:
        if asked.is_set() and number != signal.SIGHUP:
            raise KeyboardInterrupt
        if not asked.is_set():
            asked.set()
            ask()

    # those that the command lets raise KeyboardInterrupt: under nohup SIGHUP is ignored
    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.default_int_handler
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
