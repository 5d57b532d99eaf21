"""The runs of a sweep as concurrent Ray Tune trials.

Tune schedules, places and retries. What is done, half done or missing is read from the run
records alone, before and after; Tune's own state is thrown away.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError
from ray import tune
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.tune.error import TuneError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from featgan.errors import UserError
from harness.cluster.preflight import functions, versions
from harness.display import Counts, Progress, Screen
from harness.plan.run import Run, planned_epochs, stop_key
from harness.plan.settings import Pilot, Resources
from harness.records.run_record import FINAL, RunRecord, Status
from harness.runs.trial import Habits, train
from harness.storage.redaction import one_line, redacted
from harness.storage.sealed import is_of_other_format
from harness.storage.store import Store

KILLED = " (killed, or its node lost; where memory is short, lower resources.max_concurrent)"
KEYS = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
"""What Tune would hand from the driver to its trials, and Ray then write into its logs."""
REPORT_SECONDS = 1.0
"""Least time between two reports of a run to Tune, whose one driver serves all runs."""


def read_record(store: Store, run: Run) -> RunRecord | None:
    """The record of a run; None where there is none, or one damaged, or another run's.

    Raises UserError for a record that another version wrote: it must not be written over.
    """
    ((_, record),) = read_records(store, [run])
    return record


def read_records(store: Store, runs: list[Run]) -> Iterator[tuple[Run, RunRecord | None]]:
    """Each run with its record, as `read_record` reads it."""
    files = store.get_all(f"{run.folder}/run.json" for run in runs)
    for run, (key, content) in zip(runs, files, strict=True):
        yield run, None if content is None else _record(run, content, store.join(key))


def _record(run: Run, content: bytes, place: str) -> RunRecord | None:
    try:
        record = RunRecord.model_validate_json(content)
    except ValidationError as error:
        if is_of_other_format(error):
            raise UserError(
                f"{place}: another version of featgan wrote this run: continue it with "
                "that version, or remove its folder"
            ) from None
        return None
    return record if record.run == run.name else None


class Standing(NamedTuple):
    """How far the runs of a sweep are, as their records tell."""

    done: list[Run]
    half_done: list[Run]
    missing: list[Run]
    shares: dict[str, float]
    """The share, 0..1, of each half-done run that is done."""


def split(
    store: Store, runs: list[Run], pilot: Pilot | None = None, counts: Counts | None = None
) -> Standing:
    """Runs that are done, half done, and missing; what a pilot stopped is done for a pilot.

    `counts` is told their scores.
    """
    done = {*FINAL, "stopped"} if pilot else {*FINAL}
    standing = Standing([], [], [], {})
    for run, record in read_records(store, runs):
        if record is None:
            standing.missing.append(run)
            continue
        if counts is not None:
            counts.add_score(record.best_score, run.cell.label, record.score_protocol)
        if record.status in done:
            standing.done.append(run)
        else:
            standing.half_done.append(run)
            standing.shares[run.name] = min(record.epochs_spent / planned_epochs(run), 0.999)
    return standing


def carry_out(
    todo: list[Run],
    store: Store,
    resources: Resources,
    gpus_per_run: float,
    sample_every: int,
    screen: Screen,
    counts: Counts,
    pilot: Pilot | None = None,
    shares: Mapping[str, float] = MappingProxyType({}),
) -> bool:
    """Run what is to do, longest first; False if the user stopped it.

    Failed runs are tried again `max_failures` times, continuing from their checkpoints; what
    became of each is in its record. `shares`, as `split` finds them, are done already.
    """
    if not todo:
        return True
    # Tune ends its trials at Ctrl-C; ours are asked to checkpoint first.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the watch tells what failed
    class_cache.ENV_VARS_TO_PROPAGATE -= KEYS  # nodes have them already: preflight has looked
    key = stop_key(todo[0].sweep)
    store.delete(key)
    watch = _Watch(todo, store, screen, counts, pilot, shares)
    with _stopping(lambda: store.put(key, b""), watch, screen):
        for attempt in range(resources.max_failures + 1):
            try:
                _fit(todo, store, resources, gpus_per_run, sample_every, watch, pilot)
                break
            except (RuntimeError, TuneError) as error:
                # Tune itself ends so when Ray's memory monitor has killed one of its trials.
                screen.say(f"Tune stopped: {one_line(str(error))}")
                standing = split(store, todo, pilot)
                todo = standing.half_done + standing.missing
                counts.running.clear()
                counts.done, counts.failed = counts.total - len(todo), 0
                if attempt == resources.max_failures or not todo:
                    break
    store.delete(key)
    return not watch.stopped


def _fit(
    todo: list[Run],
    store: Store,
    resources: Resources,
    gpus_per_run: float,
    sample_every: int,
    watch: _Watch,
    pilot: Pilot | None,
) -> None:
    """One Tune experiment over the runs."""
    todo = sorted(todo, key=length, reverse=True)
    habits = Habits(
        resources.cpus_per_run,
        resources.checkpoint_minutes,
        sample_every,
        runs_per_gpu=max(1, int(1 / gpus_per_run)) if gpus_per_run else 1,
        report_seconds=0.0 if pilot else REPORT_SECONDS,
        gpu=gpus_per_run > 0,
    )
    # images are grouped by the driver
    on_nodes = {name for run in todo for name in run.cell.functions}
    on_nodes -= {run.cell.method.groups.method for run in todo}
    trainable = tune.with_parameters(
        train,
        runs={run.name: run for run in todo},
        store=store,
        habits=habits,
        versions=versions() | functions(on_nodes),
    )
    with tempfile.TemporaryDirectory(prefix="featgan-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus_per_run, "gpu": gpus_per_run}),
            param_space={"run": tune.grid_search([run.name for run in todo])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.max_concurrent,
                scheduler=_scheduler(pilot, todo),
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=todo[0].sweep,
                storage_path=scratch,
                verbose=0,
                callbacks=[watch],
                stop=watch,
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            ),
        ).fit()


def _scheduler(pilot: Pilot | None, todo: list[Run]) -> TrialScheduler | None:
    """Tune's own, which stops no run; for a pilot ASHA (Li et al. 2020)."""
    if pilot is None:
        return None
    return ASHAScheduler(
        time_attr="epochs",
        metric="best_score",
        mode="max",
        grace_period=pilot.grace,
        reduction_factor=pilot.keep_one_in,
        max_t=1 + max(stage.epochs for run in todo for stage in run.cell.stages),
    )


def mark_failed(store: Store, run: Run, reason: str) -> None:
    """Log why a run failed in its folder, and in its record if it has one."""
    reason = redacted(reason)
    key = f"{run.folder}/failures.txt"
    before = store.get(key) if store.exists(key) else b""
    store.put(
        key, before + f"{datetime.now(UTC).isoformat(timespec='seconds')} {reason}\n".encode()
    )
    _mark(store, run, "failed", reason)


def _mark(store: Store, run: Run, status: Status, reason: str) -> None:
    """Say in a run's record, if it has one, what its process could not say itself."""
    record = read_record(store, run)
    if record is not None and record.status not in FINAL:
        marked = record.model_copy(update={"status": status, "reason": reason})
        store.put(f"{run.folder}/run.json", marked.to_json())


@contextmanager
def _not_vital(what: str, screen: Screen) -> Iterator[None]:
    """Within, a storage that fails is told, and ends nothing: Tune would end all runs."""
    try:
        yield
    except Exception as error:  # each kind of storage fails in its own way
        screen.say(f"{what}: {one_line(str(error))}")


def length(run: Run) -> float:
    """How long a run is beside others: images it trains on, times the work for each.

    The work of convolutions grows with the pixels and with the square of the width.
    """
    method = run.cell.method
    steps, batch = method.training.epoch_steps, method.training.batch_size
    share = run.images / method.groups.k
    images = sum(
        stage.epochs * (steps * batch if steps else share * len(stage.groups))
        for stage in run.cell.stages
    )
    return images * (method.image_size * method.gan.width) ** 2


def _name(trial: Trial) -> str:
    return str(trial.config["run"])


def _reason(trial: Trial) -> str:
    """Why a trial failed, in one line.

    From Tune's file beside its driver: `get_pickled_error` reads a copy of it that comes later.
    """
    error: Any = "no reason given"
    if trial.pickled_error_file is not None:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        error = getattr(error, "cause", None) or error
    lines = redacted(str(error)).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0].strip() if lines else 'no reason given'}"[:500]
    return reason + KILLED if isinstance(error, RayActorError | WorkerCrashedError) else reason


class _Watch(tune.Callback, Stopper):
    """Shows Tune's progress, and ends the experiment once every stopped run has saved itself."""

    def __init__(
        self,
        todo: list[Run],
        store: Store,
        screen: Screen,
        counts: Counts,
        pilot: Pilot | None = None,
        shares: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._runs = {run.name: run for run in todo}
        self._store, self._screen, self._counts = store, screen, counts
        self._lengths = {run.name: length(run) for run in todo}
        self._shares = {name: shares.get(name, 0.0) for name in self._lengths}
        self._before = dict(self._shares)
        self._pilot = pilot
        self.stopped = False

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        if self._screen.is_due():  # also while all wait for a node; Tune takes many steps a second
            self._show()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        name = _name(trial)
        self._counts.running[name] = Progress(self._shares[name])
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        name = _name(trial)
        if "unfit" in result:
            self._screen.say(f"{name} waits: {result['unfit']}")
        if "share" not in result:
            return
        self._shares[name] = result["share"]
        # The checkpoint that a run goes on from may be older than its record.
        self._before[name] = min(self._before[name], result["share"])
        where = name.rpartition("-")[0]
        self._counts.add_score(result["best_score"], where, result.get("protocol", ""))
        if name in self._counts.running:
            told = (result[key] for key in ("share", "best_score", "hostname"))
            self._counts.running[name] = Progress(*told)
        self._show()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        name, done = _name(trial), self._counts.done
        self._counts.running.pop(name, None)
        if self._shares[name] >= 1:
            self._counts.done += 1
        elif self._pilot and not self.stopped:
            self._counts.done += 1
            self._shares[name] = 1.0
            told = trial.last_result
            reason = (
                f"pilot: behind others after {told['epochs']} epochs with {told['best_score']:.3f}"
            )
            with _not_vital(f"{name}: cannot be marked as stopped", self._screen):
                _mark(self._store, self._runs[name], "stopped", reason)
        self._show(last=self._counts.done > done)  # of a sweep that stops, hundreds end at once

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._failed(trial, "; trying again")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._counts.failed += 1
        self._failed(trial, "")

    def _failed(self, trial: Trial, then: str) -> None:
        """Tell the reason, and keep it beside the run: a killed process could not do it itself."""
        name, reason = _name(trial), _reason(trial)
        self._counts.running.pop(name, None)
        self._screen.say(f"{name}: {reason}{then}")
        with _not_vital(f"{name}: the reason cannot be kept beside it", self._screen):
            mark_failed(self._store, self._runs[name], reason)
        self._show(last=True)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No run is stopped from outside."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing more shall be started, and what ran has stopped."""
        return self.stopped and not self._counts.running

    def _show(self, last: bool = False) -> None:
        done = todo = 0.0
        for name, length in self._lengths.items():
            done += length * (self._shares[name] - self._before[name])
            todo += length * (1 - self._before[name])
        self._counts.share = done / todo
        self._screen.runs(self._counts, last)


@contextmanager
def _stopping(ask: Callable[[], None], watch: _Watch, screen: Screen) -> Iterator[None]:
    """Within: the first Ctrl-C or SIGTERM asks all runs to save themselves, the second ends all.

    A terminal that closes asks too, however often: the shell and the kernel both send SIGHUP.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if watch.stopped and number == signal.SIGHUP:
            return
        if watch.stopped:
            raise KeyboardInterrupt
        watch.stopped = True
        with _not_vital("runs cannot be asked to stop", screen):
            ask()
        screen.say("stopping: runs save themselves at their next evaluation (again: at once)")

    # Those that the command made interrupts; `nohup` has SIGHUP ignored.
    asking = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.default_int_handler
    ]
    before = {number: signal.signal(number, stop) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
