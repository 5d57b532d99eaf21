"""Tune's callback: shows the progress of the runs and records why runs fail."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from featgan.errors import first_line
from harness.display import Progress, Screen
from harness.runs.status import SweepProgress, record_failure, set_status
from harness.storage.store import Store

KILLED = " (killed, or its node lost; where memory is short, lower resources.max_concurrent)"


class ProgressCallback(tune.Callback, Stopper):
    """Show Tune's progress; as its Stopper, end the experiment once all stopped runs have ended."""

    def __init__(
        self, progress: SweepProgress, store: Store, screen: Screen, pilot: bool = False
    ) -> None:
        self._sweep, self._store, self._screen, self._pilot = progress, store, screen, pilot
        self._runs = {run.name: run for run in progress.pending}
        self._lengths = {name: run.planned_images for name, run in self._runs.items()}
        self._shares = dict.fromkeys(self._runs, 0.0) | progress.shares
        self._todo = self._left()
        self.stopped = False

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Show the progress, at most as often as the screen takes it."""
        if self._screen.is_due():  # also while all wait for a node; Tune takes many steps a second
            self._show()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Count the run as running."""
        self._sweep.running[self._label(trial)] = Progress(self._shares[trial_name(trial)])
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Show a report of a run."""
        if "share" not in result:
            return
        label, share, best_score = self._label(trial), result["share"], result["best_score"]
        self._shares[trial_name(trial)] = share
        self._sweep.add_score(best_score, label, result.get("protocol", ""))
        if label in self._sweep.running:
            self._sweep.running[label] = Progress(share, best_score, result["hostname"])
        self._show()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Count the run as done if it has ended; mark it if a pilot stopped it."""
        name, label, ended = trial_name(trial), self._label(trial), ""
        self._sweep.running.pop(label, None)
        if self._shares[name] >= 1:
            ended = trial.last_result["outcome"]
        elif self._pilot and not self.stopped:
            self._shares[name] = 1.0
            epochs, score = trial.last_result["epochs"], trial.last_result["best_score"]
            ended = f"pilot: behind others after {epochs} epochs with {score:.3f}"
            with self.report_storage_errors(f"{label}: cannot be marked as stopped"):
                set_status(self._store, self._runs[name], "stopped", ended)
        if ended:  # of a sweep that stops, hundreds end at once without an outcome
            self._sweep.done += 1
            self._screen.say(f"{label}: {ended} ({self._sweep.done} of {self._sweep.total} runs)")
        self._show(last=bool(ended))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Report a failure that is tried again."""
        self._failed(trial, "; trying again")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Report a failure."""
        self._sweep.failed += 1
        self._failed(trial, "")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no run is stopped by its result."""
        return False

    def stop_all(self) -> bool:
        """Return whether nothing more is to be started, and everything that ran has stopped."""
        return self.stopped and not self._sweep.running

    @contextmanager
    def report_storage_errors(self, what: str) -> Iterator[None]:
        """Report errors instead of raising them: an exception in a callback would end Tune."""
        try:
            yield
        except Exception as error:  # each kind of storage raises errors of its own
            self._screen.say(f"{what}: {first_line(error)}")

    def _failed(self, trial: Trial, then: str) -> None:
        """Show the reason, and record it for a process that could not do so itself."""
        label, reason = self._label(trial), _reason(trial)
        self._sweep.running.pop(label, None)
        self._screen.say(f"{label}: {reason}{then}")
        with self.report_storage_errors(f"{label}: the reason cannot be recorded"):
            record_failure(self._store, self._runs[trial_name(trial)], reason)
        self._show(last=True)

    def _show(self, last: bool = False) -> None:
        self._sweep.share = 1 - self._left() / self._todo
        self._screen.runs(self._sweep, last)

    def _label(self, trial: Trial) -> str:
        """Return the name of a trial's run without its signature."""
        return self._runs[trial_name(trial)].cell.label

    def _left(self) -> float:
        """Return the number of images that the runs have yet to train on."""
        return sum(length * (1 - self._shares[name]) for name, length in self._lengths.items())


def trial_name(trial: Trial) -> str:
    """Return the name of a trial's run."""
    return str(trial.config["run"])


def _reason(trial: Trial) -> str:
    """Return in one line why a trial failed."""
    if trial.pickled_error_file is None:  # `get_pickled_error` reads a copy that comes later
        return "no reason given"
    error: Any = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    error = getattr(error, "cause", None) or error
    reason = f"{type(error).__name__}: {first_line(error, 500)}"
    return reason + KILLED if isinstance(error, RayActorError | WorkerCrashedError) else reason
