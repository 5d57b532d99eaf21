"""One run as a Ray Tune trial: StagedTrainer between the store and the run record.

The run's own folder is the truth. A trial continues from the checkpoint it finds there,
wherever it is started, and Tune's checkpoints are not used. Decides nothing about the sweep.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from ray import tune

from featgan import precision
from featgan.batches import shuffled_if_random
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.images.pack import ImagePack
from featgan.sample import grid, png
from featgan.scores import feature_file
from featgan.scores.inception_score import Score, load_classifier
from featgan.staging.progress import Evaluation
from featgan.trainer import StagedTrainer
from harness.cluster import machine, preflight
from harness.plan.run import Run, planned_epochs, stop_key
from harness.preparation import image_values
from harness.records.data_set import read_data_set
from harness.records.run_record import FINAL, RunRecord, Seconds, Status
from harness.runs.checkpoint_store import Checkpoints
from harness.runs.events import EventFolder
from harness.runs.tensorboard import Curves
from harness.storage.sealed import unseal
from harness.storage.store import Store

GRID_IMAGES = 64
RECORD_SECONDS = 10.0
"""Least time between two writings of `run.json`; the checkpoint is what a run continues from."""
STOP_SECONDS = 1.0
"""Least time between two looks at whether the sweep is to stop."""


@dataclass(frozen=True)
class Habits:
    """What a trial does besides training, and on how many threads and what; not in a signature."""

    threads: int
    checkpoint_minutes: float
    sample_every: int
    """Evaluations between two sample grids in TensorBoard."""
    report_seconds: float = 0.0
    """Least time between two reports to Tune while the run goes on."""
    runs_per_gpu: int = 1
    """How many runs share a GPU: what a full one is told with."""
    gpu: bool = False
    """Whether it trains on a GPU."""


def train(
    config: dict[str, Any],
    runs: dict[str, Run],
    store: Store,
    habits: Habits,
    versions: dict[str, str],
) -> None:
    """Tune's function trainable: carry one run as far as it goes, on a node fit for it."""
    run = runs[config["run"]]
    nothing = {"epochs": 0, "best_score": float("-inf")}
    weights = run.cell.method.score.weights
    files = [weights] if weights else []
    fit = preflight.await_fit(
        lambda: preflight.unfit(store, run.groups_key, versions, files, habits.gpu),
        stopped=lambda: store.exists(stop_key(run.sweep)),
        tell=lambda reason: tune.report(nothing | {"unfit": reason}),
    )
    planned = planned_epochs(run)
    told = float("-inf")

    def report(record: RunRecord) -> None:
        nonlocal told
        if record.status == "running" and time.monotonic() - told < habits.report_seconds:
            return
        told, spent = time.monotonic(), record.epochs_spent
        tune.report(
            {
                "epochs": spent,
                "share": 1.0 if record.status in FINAL else min(spent / planned, 0.999),
                "best_score": float("-inf") if record.best_score is None else record.best_score,
                "protocol": record.score_protocol,
            }
        )

    if not fit or carry(run, store, habits, report) is None:
        tune.report(nothing | {"share": 0.0})


def carry(
    run: Run, store: Store, habits: Habits, report: Callable[[RunRecord], None]
) -> RunRecord | None:
    """Train `run` to its end, or until the sweep is asked to stop; its last record, if it began.

    What it raises is told to the sweep's driver by Tune; what was saved before stays.
    """
    if store.exists(stop_key(run.sweep)):  # Tune starts waiting runs while others are stopping
        return None
    try:
        return _carry(Trial(run, store, habits), report)
    except torch.OutOfMemoryError as error:
        training = run.cell.method.training
        raise UserError(
            f"the GPU's memory is full: lower training.batch_size ({training.batch_size}), or let "
            f"fewer runs share a GPU than {habits.runs_per_gpu} (raise resources.gpus_per_run)"
        ) from error


def _carry(trial: Trial, report: Callable[[RunRecord], None]) -> RunRecord:
    trial.prepare()
    for evaluation in trial.trainer.run():
        report(trial.observe(evaluation))
        if trial.asked_to_stop():
            record = trial.interrupt()
            break
    else:
        record = trial.finish()
    report(record)
    return record


class Trial:
    """The files around one trainer: restored from, written at every evaluation, completed."""

    trainer: StagedTrainer

    def __init__(self, run: Run, store: Store, habits: Habits) -> None:
        self.run, self.store, self.habits = run, store, habits
        self._since = time.perf_counter()
        self._io = self._wait = 0.0
        self._continued = 0
        self._machines: list[str] = []
        self._started = _now()
        self._protocol = self._metrics_protocol = ""
        self._curves: Curves | None = None
        self._generator_sha256: str | None = None
        self._checkpoints = Checkpoints(store, run.folder, run.signature)

    def prepare(self) -> None:
        """Load data and classifier, and the checkpoint if there is one."""
        torch.set_num_threads(self.habits.threads)
        self.trainer = self._trainer()
        state = self._checkpoints.load()
        if state is not None:
            self._check_same(state["computed"])
            self.trainer.restore(state["trainer"])
            self._io, self._wait = state["io"], state["wait"]
            self._continued, self._started = state["continued"] + 1, state["started"]
            self._machines = state["machines"]
        self._machines.append(f"{platform.node()}: {machine.kind(self.trainer.device)}")
        self._events = EventFolder(self.store, self.run.folder)
        self._curves = Curves(self._events.path, self.record("running"))
        self._wait += time.perf_counter() - self._since
        self._recorded = self._saved = self._stop_asked = time.monotonic()
        self._put_record("running")

    def observe(self, evaluation: Evaluation) -> RunRecord:
        """After an evaluation: curves, sample grids, record and checkpoint, each when due."""
        started = time.perf_counter()
        record = self.record("running")
        assert self._curves is not None
        self._curves.add(record.evaluations[-1], record.stages[evaluation.stage - 1])
        stage_ended = self.trainer.progress.index >= evaluation.stage
        if stage_ended or len(record.evaluations) % self.habits.sample_every == 0:
            self._curves.grid(self._images(), evaluation.epochs_spent)
        if stage_ended:  # after the rewind, if there is one: else these are the stage's last
            self._put(f"samples/stage{evaluation.stage}.png", png(grid(self._images())))
        if time.monotonic() - self._saved >= 60 * self.habits.checkpoint_minutes:
            self._save()
        elif (
            stage_ended
            or not self.habits.report_seconds  # a pilot may end the run at any report
            or time.monotonic() - self._recorded >= RECORD_SECONDS
        ):
            self._put_record("running")
        self._io += time.perf_counter() - started
        return record

    def asked_to_stop(self) -> bool:
        """Whether the sweep's driver wants its runs to stop; looked up now and then."""
        if time.monotonic() - self._stop_asked < STOP_SECONDS:
            return False
        self._stop_asked = time.monotonic()
        return self.store.exists(stop_key(self.run.sweep))

    def interrupt(self) -> RunRecord:
        """Checkpoint here, to be continued by the next sweep."""
        self._save()
        assert self._curves is not None
        self._curves.close()
        return self._put_record("interrupted", "stopped by the user")

    def finish(self) -> RunRecord:
        """Generator, samples and last checkpoint; the record that says so comes last."""
        started = time.perf_counter()
        if self.trainer.progress.final_score is not None:  # else it diverged before any peak
            generator = self.trainer.gan.generator_file()
            self._generator_sha256 = hashlib.sha256(generator).hexdigest()
            self._put("generator.safetensors", generator)
            self._put("samples/last.png", png(grid(self._images())))
        self._save()
        self._io += time.perf_counter() - started
        status: Status = "diverged" if self.trainer.diverged else "finished"
        record = self.record(status, self.trainer.diverged)
        assert self._curves is not None
        self._curves.finish(record)
        self._events.upload()
        return self._put_record(status, self.trainer.diverged)

    def record(self, status: Status, reason: str | None = None) -> RunRecord:
        """The run as it stands."""
        trainer, cell = self.trainer, self.run.cell
        progress = trainer.progress
        return RunRecord(
            run=self.run.name,
            signature=self.run.signature,
            cell=cell.as_dict(),
            settings=cell.method.model_dump(mode="json"),
            data_key=self.run.data_key,
            data_digest=self.run.data_digest,
            status=status,
            reason=reason,
            score_protocol=self._protocol,
            metrics_protocol=self._metrics_protocol,
            stages=trainer.stage_records(),
            epochs_to_peak=progress.epochs_to_peak,
            epochs_spent=progress.epochs_spent,
            final_score=progress.final_score,
            best_score=progress.best_score,
            evaluations=trainer.evaluations,
            generator_sha256=self._generator_sha256,
            seconds=Seconds(
                train=trainer.seconds["train"],
                score=trainer.seconds["score"],
                io=self._io,
                wait=self._wait,
            ),
            device=machine.device_name(trainer.device),
            machines=tuple(self._machines),
            precision=precision.name(trainer.gan.precision),
            versions=machine.versions(),
            continued=self._continued,
            started=self._started,
            updated=_now(),
        )

    def _groups(self) -> FeatureGroups:
        key = self.run.groups_key
        text = self.store.get(key)
        try:
            unseal(text)
        except ValueError as error:
            raise UserError(
                f"{self.store.join(key)}: {error}; remove it, and the sweep makes it again"
            ) from error
        return FeatureGroups.from_json(text.decode())

    def _trainer(self) -> StagedTrainer:
        cell, method = self.run.cell, self.run.cell.method
        device = machine.device(self.habits.gpu)
        self._check_data()
        pack = ImagePack.open(self.store.local(f"{self.run.data_key}/pack"))
        values = image_values.load(self.store, self.run.data_key, self.run.values_key)
        groups = self._groups()
        trained = self.run.classifier_key and self.store.local(self.run.classifier_key)
        classifier = load_classifier(method.score, device, trained or None)
        real = None
        if self.run.real_key:
            real = feature_file.read(str(self.store.local(self.run.real_key)), classifier)
        score = Score(classifier, method.score, real)
        self._protocol, self._metrics_protocol = score.protocol, score.metrics_protocol
        return StagedTrainer(
            pack,
            shuffled_if_random(groups.assign(values), cell.mode, cell.seed),
            cell.stages,
            score,
            gan=method.gan,
            training=method.training,
            seed=cell.seed,
            device=device,
            staging=method.stages,
            pacing=method.pacing,
            image_scores=values,
        )

    def _check_data(self) -> None:
        """Raise UserError where another sweep has counted the data set anew meanwhile."""
        planned = self.run.data_digest
        if planned and read_data_set(self.store, self.run.data_key).digest != planned:
            raise UserError(
                f"{self.store.join(self.run.data_key)}: its images are no longer those that this "
                "run was planned with, since some can be read now: sweep again"
            )

    def _computed(self) -> str:
        """What the last bits of a run's numbers depend on beside its settings and its machine."""
        device = self.trainer.device.type
        threads = f" threads={torch.get_num_threads()}" if device == "cpu" else ""
        trained = f"training {precision.name(self.trainer.gan.precision)} {device}{threads}"
        return "; ".join(filter(None, (trained, self._protocol, self._metrics_protocol)))

    def _check_same(self, before: str) -> None:
        """Raise UserError where the run would go on otherwise than it began."""
        if before != self._computed():
            raise UserError(
                f"begun with {before!r}; here it would go on with {self._computed()!r}, to other "
                "numbers: give it a machine of the first kind and the resources.cpus_per_run and "
                "gpus_per_run it had, or remove its folder, and it starts anew"
            )

    def _save(self) -> None:
        """Write a checkpoint, the last whole one kept, and the record that goes with it."""
        state = {
            "computed": self._computed(),
            "trainer": self.trainer.state(),
            "io": self._io,
            "wait": self._wait,
            "continued": self._continued,
            "machines": self._machines,
            "started": self._started,
        }
        self._checkpoints.save(state)
        self._events.upload()
        self._put_record("running")
        self._saved = time.monotonic()

    def _put(self, name: str, data: bytes) -> None:
        self.store.put(f"{self.run.folder}/{name}", data)

    def _put_record(self, status: Status, reason: str | None = None) -> RunRecord:
        record = self.record(status, reason)
        self._put("run.json", record.to_json())
        self._recorded = time.monotonic()
        return record

    def _images(self) -> np.ndarray:
        """The generator's images of the first rows of the evaluation noise."""
        count = min(GRID_IMAGES, self.run.cell.method.score.count)
        return self.trainer.generate(0, count).cpu().numpy()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
