"""One run: train the GAN on the first groups, measure its score, rewind to the peak, add a group.

All random numbers come from streams named by seed, stage and epoch (`featgan.seeds`), not from a
global generator; so a continued run ends with the same bytes, and measuring a score does not
change the training. Writes no files.
"""

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

from featgan.batches import Batches, Images, on_device, regrouped
from featgan.gans.classes import draw, in_rows, one_hot
from featgan.gans.gan import Gan
from featgan.gans.schedules import RunLength
from featgan.gans.settings import GanSettings
from featgan.precision import resolve
from featgan.scores.inception_score import Diverged
from featgan.scores.score import Score
from featgan.scores.settings import lower_is_better
from featgan.seeds import derive, stream
from featgan.settings import TrainingSettings
from featgan.staging.pacing import growth_order, image_count, image_weights, ranks
from featgan.staging.progress import Evaluation, Progress, StageRecord
from featgan.staging.settings import SCORE, PacingSettings, StageSettings
from featgan.staging.stages import Stage

SPREAD_IMAGES = 64
LEAST_WEIGHT = 1e-6
"""Least weight of an image in pacing, so that a group of images that count least can train."""
PREVIOUS_STAGE = -1
"""Key of the previous stage's peak in `StagedTrainer._models`."""


class StagedTrainer:
    """Staged training of one GAN (paper, section 4).

    `stages` say which groups train when (`featgan.staging.stages.plan`). `groups` [len(images)]
    holds the group number of every image, 0 for those left out, `image_values` [len(images)] the
    values by which pacing orders them; the default is `groups`. A conditional GAN needs `labels`
    [len(images)], the name of the class of every image. Iterate over `run()` for one evaluation at
    a time; at each of them `state()` is a complete checkpoint. Sets flags of the process.
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
        image_values: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        set_process_flags(training.deterministic, resolve(training.precision, device))
        self.training, self.seed, self.device, self.score = training, seed, device, score
        self.batches = Batches(images, groups, training, seed, device)
        length = RunLength(
            sum(stage.epochs * self.batches.steps(stage) for stage in stages),
            math.ceil(np.count_nonzero(groups) / training.batch_size),
        )
        classes: dict[str, int] = {}
        self._classes: Tensor | None = None
        """The number of the class of each image, of a conditional GAN."""
        if gan.conditional:
            if labels is None:
                raise ValueError("a conditional GAN needs the labels of the images")
            names, numbers = np.unique(labels, return_inverse=True)
            counts = np.bincount(numbers[groups > 0], minlength=len(names))
            classes = dict(zip(map(str, names), counts.tolist(), strict=True))
            self._classes = on_device(torch.from_numpy(numbers), device)
        self.gan = Gan(gan, training, images.size, seed, device, length=length, classes=classes)
        self.progress = Progress(stages, staging or StageSettings())
        self._is_ranked = self.progress.settings.rank != "none"
        self._groups = groups
        """The group number of every image at the start."""
        self._moved: list[int | None] = [None] * len(stages)
        """How many images each stage has from other groups, once images are ranked for it."""
        self.evaluations: list[Evaluation] = []
        self.seconds = {"train": 0.0, "score": 0.0}
        self.diverged: str | None = None
        """Reason for an early end of the run, if it diverged."""
        self.last_generator: bytes | None = None
        """File of the generator of the run's last evaluation, once the run has finished."""
        self._models: dict[int, dict[str, Any]] = {}
        """Models of the peak and of evaluations that may become it, by position in the stage.

        Before the stage has a peak, also the peak of the previous stage."""
        self._pacing = pacing or PacingSettings()
        kept = np.flatnonzero(groups)
        values = (groups if image_values is None else image_values)[kept]
        self._ranks = np.zeros(len(groups))
        self._ranks[kept] = ranks(values)
        self._growth = torch.from_numpy(kept[growth_order(values, self._pacing, seed)])
        self._random = torch.Generator(device)
        """Source of all random numbers of the training; seeded again for each epoch."""
        self._tally = torch.zeros(4, device=device)
        """Sum of the steps' tallies since the last evaluation."""
        self._tally_steps, self._tally_seconds = 0, 0.0
        noise = draw(gan.latent, classes, score.settings.count, stream(seed, "evaluation"))
        self._noise = noise.to(device)

    def run(self) -> Iterator[Evaluation]:
        """Train to the end, one evaluation at a time; the final model is the last peak's."""
        progress = self.progress
        while not progress.finished and not self.diverged:
            self.train(self.training.evaluate_every)
            try:
                evaluation = self.evaluate()
            except Diverged as error:
                where = f"stage {progress.stage.number}, epoch {progress.epoch}"
                self.diverged = f"{where}: {error}"
                self._rewind()
                return
            progress.observe(evaluation.score, self._watched(evaluation))
            self._keep_models()
            if progress.stage_over:
                if is_last := progress.stage is progress.stages[-1]:
                    self.last_generator = self.gan.generator_file()
                if is_last or progress.settings.rewind:
                    self._rewind()
                peak = self._peak_model()
                self._models = {PREVIOUS_STAGE: peak} if peak else {}
                progress.next_stage()
                if self._is_ranked and not progress.finished:
                    self._rank_images()
            yield evaluation
        if progress.finished and progress.final_score is None:
            watch = progress.settings.watch
            self.diverged = f"stages.watch: {watch} was NaN or infinite in every evaluation"

    def train(self, epochs: int) -> None:
        """Train on the groups of the current stage."""
        started, steps = time.perf_counter(), self.gan.steps
        for _ in range(epochs):
            self._train_epoch()
            self.progress.trained(1)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - started
        self.seconds["train"] += seconds
        self._tally_seconds += seconds
        self._tally_steps += self.gan.steps - steps

    def _train_epoch(self) -> None:
        stage, epoch = self.progress.stage, self.progress.epoch
        self._random.manual_seed(derive(self.seed, "noise", stage.number, epoch))
        # Built-in networks draw from `_random` only; user-defined networks may use dropout.
        torch.manual_seed(derive(self.seed, "networks", stage.number, epoch))
        chances = weights = rows = None
        if self._pacing.grow != "none":
            rows = self._growth[: image_count(len(self._growth), self.progress.share, self._pacing)]
        if self._pacing.by != "none":
            share = self.progress.share
            paced = torch.from_numpy(image_weights(self._ranks, share, self._pacing))
            paced.clamp_(min=LEAST_WEIGHT)
            if self._pacing.by == "sampling":
                chances = paced
            else:  # 1 on average over the images of the stage
                mean = paced[self.batches.rows(stage)].mean()
                weights = on_device((paced / mean).float(), self.device)
        for real, batch in self.batches.epoch(stage, epoch, chances, rows):
            batch_weights = None if weights is None else weights[batch]
            classes = self._one_hot(batch)
            self._tally += self.gan.step(real, self._random, batch_weights, classes)

    def _one_hot(self, rows: Tensor) -> Tensor | None:
        """Return the classes [n, classes] of images, if the GAN is conditional."""
        if self._classes is None:
            return None
        return one_hot(self._classes[rows], len(self.gan.classes))

    def _rank_images(self) -> None:
        """Deal images out to the coming stages by what D, as it is now, gives for them.

        Each stage has a group that those before have not. Where their numbers fall, the images of
        the highest values come first.
        """
        at, settings, batches = self.progress.index, self.progress.settings, self.batches
        groups = [stage.groups[-1] for stage in self.progress.stages]
        order = groups[at:] if settings.change == "add" else groups[at:] + groups[:at]
        rated = [self.gan.rate(real, self._one_hot(rows)) for real, rows in batches.in_order(order)]
        values = torch.cat(rated)
        if settings.rank == "discriminator_loss":
            values = self.gan.loss.real(values)
        if groups[0] > groups[-1]:
            values = -values
        batches.groups = regrouped(batches.groups, values.cpu().numpy(), order)
        own = self.progress.stage.groups
        moved = np.isin(batches.groups, own) & ~np.isin(self._groups, own)
        self._moved[at] = int(moved.sum())

    def evaluate(self) -> Evaluation:
        """Measure the current model; the training continues as if this had not been called.

        Raises Diverged if losses, weights, images or logits are not finite.
        """
        steps, train_seconds = self._tally_steps, self._tally_seconds
        loss_d, loss_g, d_real, d_fake = (self._tally.double() / max(steps, 1)).tolist()
        self._tally.zero_()
        self._tally_steps, self._tally_seconds = 0, 0.0
        if not (math.isfinite(loss_d) and math.isfinite(loss_g)):
            raise Diverged(f"the losses are not finite (D {loss_d}, G {loss_g})")
        if not self.gan.is_finite():  # the losses were computed before the last update
            raise Diverged("weights or optimizer moments are not finite")
        started = time.perf_counter()
        sample = self.gan.images(self._noise[:SPREAD_IMAGES])
        if not bool(sample.isfinite().all()):
            raise Diverged("the generated images are not finite")
        measured = self.score.evaluate(self.generate)
        evaluation = Evaluation(
            stage=self.progress.stage.number,
            epoch=self.progress.epoch,
            epochs_spent=self.progress.epochs_spent,
            steps=self.gan.steps,
            **vars(measured),
            spread=sample.std(dim=0).mean().item() * 127.5,
            loss_d=loss_d,
            loss_g=loss_g,
            d_real=d_real,
            d_fake=d_fake,
            images_seen=int(self.batches.seen.sum()),
            images_per_second=steps * self.training.batch_size / max(train_seconds, 1e-9),
        )
        self.seconds["score"] += time.perf_counter() - started
        self.evaluations.append(evaluation)
        return evaluation

    def generate(self, start: int, stop: int) -> Tensor:
        """Return the images of rows start..stop of the noise: uint8 [stop - start, 3, S, S].

        The noise is the same in every evaluation of a run.
        """
        return self.gan.generate(self._noise[start:stop])

    def samples(self, count: int) -> Tensor:
        """Return the first images for a grid; of a conditional GAN each row has another class."""
        return self.gan.generate(in_rows(self._noise[:count], self.gan.classes))

    def stage_records(self) -> list[StageRecord]:
        """Return the stages begun, each with its peak so far."""
        progress = self.progress
        begun = zip(progress.stages, progress.epochs, progress.peaks, strict=False)
        return [
            StageRecord(
                stage=stage.number,
                groups=stage.groups,
                images=len(self.batches.rows(stage)),
                epochs=epochs,
                peak_epoch=peak.epoch if peak else None,
                peak_score=peak.score if peak else None,
                moved=self._moved[stage.number - 1],
            )
            for stage, epochs, peak in begun
        ]

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: tensors, numbers and strings in plain containers."""
        state = {
            "model": self.gan.state(),
            "models": dict(self._models),
            "progress": self.progress.state(),
            "steps": self.gan.steps,
            "seen": self.batches.seen.clone(),
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "seconds": dict(self.seconds),
            "diverged": self.diverged,
            "last_generator": self.last_generator,
        }
        if self._is_ranked:
            state["groups"] = torch.from_numpy(self.batches.groups.copy())
            state["moved"] = list(self._moved)
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the `state()` of a trainer with the same arguments, at an evaluation."""
        self.gan.load_state(state["model"])
        self._models = dict(state["models"])
        self.progress.restore(state["progress"])
        self.gan.steps = state["steps"]
        self.batches.seen = state["seen"].clone()
        self.evaluations = [Evaluation(**evaluation) for evaluation in state["evaluations"]]
        self.seconds = dict(state["seconds"])
        self.diverged = state["diverged"]
        self.last_generator = state["last_generator"]
        if self._is_ranked:
            self.batches.groups = state["groups"].clone().numpy()
            self._moved = list(state["moved"])

    def _watched(self, evaluation: Evaluation) -> float:
        """Return the value that the criterion compares; higher is better."""
        watch = self.progress.settings.watch
        value = ({SCORE: evaluation.score} | evaluation.metrics)[watch]
        return -value if lower_is_better(watch) else value

    def _keep_models(self) -> None:
        """Keep the current model if it is the peak's or may become it; drop those that cannot."""
        current, kept = len(self.progress.measured) - 1, self.progress.kept
        if current in kept:
            self._models[current] = self.gan.state()
        if self.progress.chosen is None:
            kept = {PREVIOUS_STAGE, *kept}
        self._models = {number: self._models[number] for number in sorted(kept & {*self._models})}

    def _peak_model(self) -> dict[str, Any] | None:
        """Return the model at the stage's peak; without one, at the previous stage's."""
        chosen = self.progress.chosen
        return self._models.get(PREVIOUS_STAGE if chosen is None else chosen)

    def _rewind(self) -> None:
        """Restore networks and optimizers as they were at the peak, if there is one."""
        if peak := self._peak_model():
            self.gan.load_state(peak)


def set_process_flags(deterministic: bool, precision: torch.dtype) -> None:
    """Set PyTorch's flags and the C library's allocator for a process that trains one run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(deterministic)
    # Filling memory costs 5% of a step, and nothing here reads uninitialized memory.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cudnn.benchmark = not deterministic
    # TF32 is on by default, and rounds fp32 to 10 bits in convolutions. Scores and feature counts
    # turn it off by the same flag; it must not be mixed with `fp32_precision`.
    torch.backends.cudnn.allow_tf32 = precision != torch.float32
    # Let glibc keep what a step frees for the next step: page faults cost 2 to 5% of a step.
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 2**30)
