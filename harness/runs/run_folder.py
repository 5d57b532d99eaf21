"""The files of a run, and when each of them is written."""

import hashlib
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

from featgan import checkpoint, precision
from featgan.errors import UserError
from featgan.sample import GENERATOR, LAST_GENERATOR, grid, png
from featgan.staging.progress import Evaluation
from featgan.trainer import StagedTrainer
from harness.cluster import machine
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.records.run_record import RunRecord, Seconds, Status, timestamp
from harness.runs.tensorboard import EventWriter
from harness.storage.store import Store

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
GRID_IMAGES = 64
RECORD_SECONDS = 10.0
"""Least time between two writings of `run.json`, which a run does not continue from."""
STOP_SECONDS = 1.0
"""Least time between two checks of the request to stop."""


@dataclass
class _History:
    """Facts about a run that its trainer does not hold; a part of the checkpoint."""

    io: float = 0.0
    wait: float = 0.0
    """Seconds, as in `Seconds`."""
    continued: int = 0
    machines: list[str] = field(default_factory=list)
    started: str = field(default_factory=timestamp)


class RunFolder:
    """The folder of one run: it follows the run's trainer, and is what the run continues from.

    `run.json`: the record; at the start and the end, with each checkpoint, at the end of a stage
    and else every 10 seconds (of a pilot: at every evaluation).
    `checkpoint.pt`: every `checkpoint_minutes` and at the end; the one before is kept, for
    the case that it is damaged.
    `samples/`: a grid of images at the end of each stage and of the run.
    TensorBoard's event files: a point at every evaluation, on disk before each checkpoint.
    `generator.safetensors`, `last_generator.safetensors`: at the end; of the peak, and of the last
    evaluation.
    """

    def __init__(
        self, run: Run, store: Store, sweep: Sweep, trainer: StagedTrainer, since: float
    ) -> None:
        """Continue from the newest checkpoint, if there is one.

        `since` is the value of `time.perf_counter` at which the trial began. Raises UserError
        where the checkpoint is of a machine whose numbers are not the same.
        """
        self.trainer = trainer
        self._run, self._store, self._sweep = run, store, sweep
        self._latest_is_whole = False
        self._history = _History()
        self._generators: dict[str, str] = {}
        """SHA-256 of the generators' files, by name."""
        if state := self._load():
            if state["numerics"] != self._numerics():
                raise UserError(
                    f"this run started with {state['numerics']!r} and would continue with "
                    f"{self._numerics()!r}, which changes its numbers: use a machine of the first "
                    "kind with the resources.cpus_per_run and gpus_per_run it had, or remove its "
                    "folder to start it again"
                )
            trainer.restore(state["trainer"])
            self._history = _History(**state["history"])
            self._history.continued += 1
        self._device = machine.device_name(trainer.device)
        # two of the same device and version compute the same bytes
        kind = f"{self._device}, torch {torch.__version__}"
        self._history.machines.append(f"{platform.node()}: {kind}")
        self._events = EventWriter(
            store, run.folder, trainer.score.protocol, trainer.progress.epochs_spent
        )
        self._history.wait += time.perf_counter() - since
        self._recorded = self._saved = self._checked = time.monotonic()
        self._put_record("running")

    def observe(self, evaluation: Evaluation) -> RunRecord:
        """Write what is due after an evaluation; return the record."""
        started = time.perf_counter()
        record = self._record("running")
        self._events.add_evaluation(evaluation, record.stages[evaluation.stage - 1])
        stage_ended = self.trainer.progress.index >= evaluation.stage
        if stage_ended or len(record.evaluations) % self._sweep.sample_every == 0:
            self._events.add_samples(picture := self._picture(), evaluation.epochs_spent)
            if stage_ended:  # the trainer is at the stage's peak if it rewinds, else at its end
                self._put(f"samples/stage{evaluation.stage}.png", png(picture))
        now = time.monotonic()
        if now - self._saved >= 60 * self._sweep.resources.checkpoint_minutes:
            self._save()
        elif stage_ended or self._sweep.pilot or now - self._recorded >= RECORD_SECONDS:
            self._put_record("running")
        self._history.io += time.perf_counter() - started
        return record

    def stop_requested(self) -> bool:
        """Return whether the sweep's driver asks its runs to stop; checked once a second."""
        if time.monotonic() - self._checked < STOP_SECONDS:
            return False
        self._checked = time.monotonic()
        return self._store.exists(self._run.stop_key)

    def interrupt(self) -> RunRecord:
        """Write a checkpoint for the next sweep to continue from."""
        self._save()
        self._events.close()
        return self._put_record("interrupted", "stopped by the user")

    def finish(self) -> RunRecord:
        """Write generator, samples and the last checkpoint; the record of the end comes last."""
        started, trainer = time.perf_counter(), self.trainer
        if trainer.progress.final_score is not None:  # else it diverged before any peak
            self._put_generator(GENERATOR, trainer.gan.generator_file())
            if trainer.last_generator:
                self._put_generator(LAST_GENERATOR, trainer.last_generator)
            self._put("samples/last.png", png(self._picture()))
        self._save()
        self._history.io += time.perf_counter() - started
        status: Status = "diverged" if trainer.diverged else "finished"
        self._events.add_summary(self._record(status))
        self._events.close()
        return self._put_record(status, trainer.diverged)

    def _load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint of this run that is undamaged, None without any."""
        for name in (LATEST, PREVIOUS):
            with suppress(FileNotFoundError, checkpoint.Damaged):
                state = checkpoint.load(self._store.get(f"{self._run.folder}/{name}"))
                if state.get("signature") == self._run.signature:
                    self._latest_is_whole = name == LATEST
                    return state
        return None

    def _save(self) -> None:
        """Write a checkpoint, and the events and the record that go with it."""
        self._events.flush()
        state = {
            "signature": self._run.signature,
            "numerics": self._numerics(),
            "trainer": self.trainer.state(),
            "history": asdict(self._history),
        }
        data, folder = checkpoint.dump(state), self._run.folder
        if self._latest_is_whole:  # a damaged one must not replace an undamaged one
            self._store.move(f"{folder}/{LATEST}", f"{folder}/{PREVIOUS}")
        self._put(LATEST, data)
        self._latest_is_whole = True
        self._put_record("running")
        self._saved = time.monotonic()

    def _numerics(self) -> str:
        """Return all but settings and machine that the last bits of a run's numbers depend on."""
        trainer, device = self.trainer, self.trainer.device.type
        threads = f" threads={torch.get_num_threads()}" if device == "cpu" else ""
        trained = f"training {precision.name(trainer.gan.precision)} {device}{threads}"
        protocols = trainer.score.protocol, trainer.score.metrics_protocol
        return "; ".join(filter(None, (trained, *protocols)))

    def _record(self, status: Status, reason: str | None = None) -> RunRecord:
        run, trainer, history = self._run, self.trainer, self._history
        progress = trainer.progress
        return RunRecord(
            run=run.name,
            signature=run.signature,
            cell=run.cell.as_dict(),
            settings=run.cell.method.model_dump(mode="json"),
            data_key=run.data_key,
            data_digest=run.data_digest,
            status=status,
            reason=reason,
            score_protocol=trainer.score.protocol,
            metrics_protocol=trainer.score.metrics_protocol,
            stages=trainer.stage_records(),
            epochs_to_peak=progress.epochs_to_peak,
            epochs_spent=progress.epochs_spent,
            final_score=progress.final_score,
            best_score=progress.best_score,
            evaluations=trainer.evaluations,
            generator_sha256=self._generators.get(GENERATOR),
            last_generator_sha256=self._generators.get(LAST_GENERATOR),
            seconds=Seconds(**trainer.seconds, io=history.io, wait=history.wait),
            device=self._device,
            machines=tuple(history.machines),
            precision=precision.name(trainer.gan.precision),
            versions=machine.versions(),
            continued=history.continued,
            started=history.started,
            updated=timestamp(),
        )

    def _put_record(self, status: Status, reason: str | None = None) -> RunRecord:
        record = self._record(status, reason)
        self._put("run.json", record.to_json())
        self._recorded = time.monotonic()
        return record

    def _put_generator(self, name: str, content: bytes) -> None:
        self._put(name, content)
        self._generators[name] = hashlib.sha256(content).hexdigest()

    def _put(self, name: str, data: bytes) -> None:
        self._store.put(f"{self._run.folder}/{name}", data)

    def _picture(self) -> Image.Image:
        """Return a grid of the generator's images."""
        count = min(GRID_IMAGES, self._run.cell.method.score.count)
        return grid(self.trainer.samples(count).cpu().numpy())
