"""One run: select groups, train the GAN, measure the score, rewind to the peak, add a group.

Everything random comes from a stream named by seed, stage and epoch (`featgan.seeds`), never
from a global generator; so a continued run ends with the same bytes, and measuring a score
leaves no trace in the training. Writes no files.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featgan.batches import Batches, Images, on_device
from featgan.errors import UserError
from featgan.gans.gan import Gan
from featgan.gans.settings import GanSettings
from featgan.scores.inception_score import Diverged, Score
from featgan.scores.settings import lower_is_better
from featgan.seeds import derive, stream
from featgan.settings import TrainingSettings
from featgan.staging.pacing import favour, ranks
from featgan.staging.progress import Evaluation, Progress, StageRecord
from featgan.staging.settings import SCORE, PacingSettings, StageSettings
from featgan.staging.stages import Stage

STATE_FORMAT = 2
SPREAD_IMAGES = 64
LEAST_CHANCE = 1e-6
"""Least weight of an image in pacing, so that a group of the least favoured ones can train."""
BEFORE = -1
"""In place of an evaluation's number: the peak of the stage before."""


class StagedTrainer:
    """Staged training of one GAN (paper, section 4).

    `stages` say which groups train when (`featgan.stages.plan`); `groups` [len(images)] holds
    every image's group number, `image_scores` [len(images)] what pacing orders them by. Iterate
    `run()` for an evaluation at a time; at each of them `state()` is a complete checkpoint.
    """

    def __init__(
        self,
        images: Images,
        groups: np.ndarray,
        stages: tuple[Stage, ...],
        score: Score,
        *,
        gan: GanSettings,
        training: TrainingSettings,
        seed: int,
        device: torch.device,
        staging: StageSettings | None = None,
        pacing: PacingSettings | None = None,
        image_scores: np.ndarray | None = None,
    ) -> None:
        be_deterministic(training.deterministic)
        _keep_freed_memory()
        self.training, self.seed, self.device, self.score = training, seed, device, score
        self.batches = Batches(
            images,
            groups,
            batch_size=training.batch_size,
            epoch_steps=training.epoch_steps,
            horizontal_flip=training.horizontal_flip,
            seed=seed,
            device=device,
        )
        self.gan = Gan(gan, training, images.size, seed, device)
        # On by default: convolutions would round fp32 to 10 bits. What is measured and counted
        # switches it off with the same flag; it and `fp32_precision` must not be mixed.
        torch.backends.cudnn.allow_tf32 = self.gan.precision != torch.float32
        self.progress = Progress(stages, staging or StageSettings())
        self.evaluations: list[Evaluation] = []
        self.seconds = {"train": 0.0, "score": 0.0}
        self.diverged: str | None = None
        """Why the run ended early; None while it has not."""
        self._models: dict[int, dict[str, Any]] = {}
        """The peak's model, and those that may become it, by evaluation of the stage; until it
        has a peak, that of the stage before."""
        self._pacing = pacing or PacingSettings()
        self._ranks = ranks(groups if image_scores is None else image_scores)
        self._random = torch.Generator(device)
        """Of the training: seeded anew each epoch."""
        self._tally = torch.zeros(4, device=device)
        self._tallied = 0, 0.0  # steps and seconds since the last evaluation
        self._noise = torch.randn(
            (score.settings.count, gan.latent), generator=stream(seed, "evaluation")
        ).to(device)

    def run(self) -> Iterator[Evaluation]:
        """Train to the end, an evaluation at a time; at the end the model is the last peak's."""
        while not self.progress.finished and not self.diverged:
            self.train(self.training.evaluate_every)
            try:
                evaluation = self.evaluate()
            except Diverged as error:
                self.diverged = f"stage {self.progress.stage.number}, "
                self.diverged += f"epoch {self.progress.epoch}: {error}"
                self._rewind()
                return
            self.progress.observe(evaluation.score, self._watched(evaluation))
            self._keep_models()
            if self.progress.stage_over:
                if self.progress.settings.rewind or self.progress.last_stage:
                    self._rewind()
                peak = self._models.get(self._at_peak)
                self._models = {} if peak is None else {BEFORE: peak}
                self.progress.next_stage()
            yield evaluation
        if self.progress.finished and self.progress.final_score is None:
            self.diverged = f"stages.watch: {self.progress.settings.watch} was never a number"

    def train(self, epochs: int) -> None:
        """Train on the groups of the current stage."""
        started = time.perf_counter()
        before = self.gan.steps
        for _ in range(epochs):
            self._train_epoch()
            self.progress.trained(1)
        self._synchronize()
        seconds = time.perf_counter() - started
        self.seconds["train"] += seconds
        self._tallied = self._tallied[0] + self.gan.steps - before, self._tallied[1] + seconds

    def _train_epoch(self) -> None:
        stage, epoch = self.progress.stage, self.progress.epoch
        self._random.manual_seed(derive(self.seed, "noise", stage.number, epoch))
        # Ours draw from streams alone; a user's own networks may have dropout.
        torch.manual_seed(derive(self.seed, "networks", stage.number, epoch))
        chances = weights = None
        if self._pacing.by != "none":
            paced = torch.from_numpy(favour(self._ranks, self.progress.share, self._pacing))
            paced.clamp_(min=LEAST_CHANCE)
            if self._pacing.by == "sampling":
                chances = paced
            else:  # 1 on average over the images that train
                mean = paced[self.batches.rows(stage)].mean()
                weights = on_device((paced / mean).float(), self.device)
        for real, rows in self.batches.epoch(stage, epoch, chances):
            of_real = None if weights is None else weights[rows]
            self._tally += self.gan.step(real, self._random, of_real)

    def evaluate(self) -> Evaluation:
        """Measure the model as it is; the training is as if this had not been called.

        Raises Diverged where losses, weights, images or logits are not finite.
        """
        steps, train_seconds = self._tallied
        loss_d, loss_g, d_real, d_fake = (self._tally.double() / max(steps, 1)).tolist()
        self._tally.zero_()
        self._tallied = 0, 0.0
        if not (math.isfinite(loss_d) and math.isfinite(loss_g)):
            raise Diverged(f"the losses are not finite (D {loss_d}, G {loss_g})")
        if not self.gan.is_finite():  # the losses are of before the last update
            raise Diverged("weights or optimizer moments are not finite")
        started = time.perf_counter()
        spread = self._spread()
        measured = self.score.evaluate(self.generate)
        self.seconds["score"] += time.perf_counter() - started
        evaluation = Evaluation(
            stage=self.progress.stage.number,
            epoch=self.progress.epoch,
            epochs_spent=self.progress.epochs_spent,
            steps=self.gan.steps,
            score=measured.score,
            score_std=measured.score_std,
            spread=spread,
            metrics=measured.metrics,
            loss_d=loss_d,
            loss_g=loss_g,
            d_real=d_real,
            d_fake=d_fake,
            images_per_second=steps * self.training.batch_size / max(train_seconds, 1e-9),
        )
        self.evaluations.append(evaluation)
        return evaluation

    def generate(self, start: int, stop: int) -> Tensor:
        """Images of rows start..stop of the evaluation noise: uint8 [stop - start, 3, S, S].

        The noise is the same at every evaluation of a run.
        """
        return self.gan.generate(self._noise[start:stop])

    def stage_records(self) -> list[StageRecord]:
        """Return the stages begun, each with its peak so far."""
        progress = self.progress
        return [
            StageRecord(
                stage=stage.number,
                groups=stage.groups,
                images=self.batches.count(stage),
                epochs=epochs,
                peak_epoch=peak.epoch if peak else None,
                peak_score=peak.score if peak else None,
            )
            for stage, epochs, peak in zip(
                progress.stages, progress.epochs, progress.peaks, strict=False
            )
        ]

    def state(self) -> dict[str, Any]:
        """Everything that `restore` continues from: tensors, numbers and strings only."""
        return {
            "format": STATE_FORMAT,
            "model": self.gan.state(),
            "models": dict(self._models),
            "progress": self.progress.state(),
            "steps": self.gan.steps,
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "seconds": dict(self.seconds),
            "diverged": self.diverged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of a run with the same arguments, at its evaluation.

        Raises UserError where another version of featgan made it.
        """
        if state["format"] != STATE_FORMAT:
            raise UserError(
                f"a checkpoint of another version of featgan (state {state['format']}, this one "
                f"has {STATE_FORMAT}): continue the run with that version, or remove its folder"
            )
        self.gan.load_state(state["model"])
        self._models = dict(state["models"])
        self.progress = Progress.restore(
            self.progress.stages, self.progress.settings, state["progress"]
        )
        self.gan.steps = state["steps"]
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]
        self.seconds = dict(state["seconds"])
        self.diverged = state["diverged"]

    def _spread(self) -> float:
        """Standard deviation over images, mean over pixels, in grey levels.

        Raises Diverged if a pixel is not finite.
        """
        sample = self.gan.images(self._noise[:SPREAD_IMAGES])
        if not bool(sample.isfinite().all()):
            raise Diverged("the generated images are not finite")
        return sample.std(dim=0).mean().item() * 127.5

    def _watched(self, evaluation: Evaluation) -> float:
        """What the criterion looks at, higher being better."""
        watch = self.progress.settings.watch
        if watch == SCORE:
            return evaluation.score
        value = evaluation.metrics[watch]
        return -value if lower_is_better(watch) else value

    def _keep_models(self) -> None:
        """Keep this evaluation's model if it is the peak's or may become it; drop the others."""
        newest, kept = len(self.progress.measured) - 1, self.progress.kept
        if newest in kept:
            self._models[newest] = self.gan.state()
        if self.progress.chosen is None:
            kept = {BEFORE, *kept}
        self._models = {number: self._models[number] for number in sorted(kept & {*self._models})}

    @property
    def _at_peak(self) -> int:
        return BEFORE if self.progress.chosen is None else self.progress.chosen

    def _rewind(self) -> None:
        """Back to networks and optimizers as of the peak, if there was one."""
        if self._at_peak in self._models:
            self.gan.load_state(self._models[self._at_peak])

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def be_deterministic(on: bool) -> None:
    """Let PyTorch use deterministic algorithms only; a run owns its process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(on)
    fill = "fill_uninitialized_memory"  # costs 5% of a step, and nothing here reads such memory
    setattr(torch.utils.deterministic, fill, False)
    torch.backends.cudnn.benchmark = not on


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one: 2 to 5% of a step are page faults."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 2**30)
