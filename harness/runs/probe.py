"""Measure what a sweep costs: train real steps on random images, and compute real scores."""

import math
import os
import resource
import time
from typing import NamedTuple

import numpy as np
import torch

from featgan import precision
from featgan.scores.classifiers import Classifier
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Score, add_feature_network, load_classifier
from featgan.scores.small_cnn import network, prepare
from featgan.staging.stages import plan
from featgan.trainer import StagedTrainer
from harness.plan.estimate import count_images, total
from harness.plan.grid import Cell, expand
from harness.plan.settings import Method, Sweep

PROBE_SECONDS = 30.0
"""Seconds of training, divided among the kinds of runs."""
MOST_STEPS = 50
"""Longest epoch of a probe on a GPU, in steps."""
COSTS = {"image_size", "gan", "training", "pacing", "score"}
"""Settings on which the cost of steps and scores depends."""


class Pace(NamedTuple):
    """Measurements of one kind of run."""

    step_seconds: float
    score_seconds: float
    memory: int
    """Bytes: of the GPU where there is one, else of the process."""
    precision: str


class RandomImages:
    """Random images of a method's size."""

    def __init__(self, method: Method) -> None:
        self.size: int = method.image_size
        shape = (max(256, method.training.batch_size), 3, self.size, self.size)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return images [n, 3, S, S] by their numbers."""
        return self.pixels[rows]


def probe(sweep: Sweep) -> str:
    """Measure each kind of run for its share of `PROBE_SECONDS`; return a text with the hours."""
    cells = expand(sweep)
    images = count_images(sweep, cells)
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(cell.method.model_dump_json(include=COSTS), []).append(cell)
    gpus = torch.cuda.device_count()
    device = torch.device("cuda" if gpus else "cpu")
    torch.set_num_threads(sweep.resources.cpus_per_run)
    lines = [f"probe on this machine's {device.type}, including its current load:"]
    hours = 0.0
    for runs in kinds.values():
        method = runs[0].method
        real = max(images[cell.data] for cell in runs)
        pace = measure(method, real, device, PROBE_SECONDS / len(kinds))
        work = total(runs, images)
        seconds = work.steps * pace.step_seconds + work.evaluations * pace.score_seconds
        if sweep.rescore:
            fresh = work.fresh_images_gpu if gpus else work.fresh_images
            seconds += pace.score_seconds * fresh / method.score.count
        hours += seconds / 3600
        lines.append(
            f"  {len(runs)} runs of {method.gan.network} at {method.image_size} px, "
            f"width {method.gan.width}, {pace.precision}: {pace.step_seconds * 1e3:.1f} ms a step, "
            f"{pace.score_seconds:.2f} s a score, {pace.memory / 2**30:.1f} GiB"
        )
    slots = gpus or max(1, (os.cpu_count() or 1) // sweep.resources.cpus_per_run)
    slots = min(slots, sweep.resources.max_concurrent or slots)
    at_once = hours * math.ceil(len(cells) / slots) / len(cells)  # the last round may be short
    lines.append(f"  one run after another: {hours:.2f} hours")
    by = "one a GPU" if gpus else "by cores"
    lines.append(f"  {slots} runs at once, {by}: {at_once:.2f} hours")
    return "\n".join(lines)


def measure(method: Method, real: int, device: torch.device, seconds: float) -> Pace:
    """Train for about `seconds`, and compute a score with the metrics of `real` real images."""
    images = RandomImages(method)
    classifier = _classifier(method, device)
    blank = torch.zeros((1, 3, method.image_size, method.image_size), dtype=torch.uint8)
    columns = classifier.features_and_logits(blank)[0].shape[1]
    real_features = torch.randn(real, columns, device=classifier.device)
    steps = 1
    if on_gpu := device.type == "cuda":
        torch.cuda.empty_cache()  # of the kind measured before
        torch.cuda.reset_peak_memory_stats(device)
        # an epoch of a single step would measure its start
        epoch = method.training.epoch_steps or math.ceil(real / method.training.batch_size)
        steps = min(epoch, MOST_STEPS)
    training = method.training.model_copy(update={"epoch_steps": steps})
    trainer = StagedTrainer(
        images,
        np.resize(np.arange(1, method.groups.k + 1), len(images)),
        plan("conventional", method.groups.k, training.stage_epochs),
        Score(classifier, method.score, FeatureStatistics(real_features)),
        gan=method.gan,
        training=training,
        seed=0,
        device=device,
        pacing=method.pacing,
        image_values=np.arange(len(images)),
        labels=np.arange(len(images)) % 10,
    )
    d_steps = trainer.gan.optimizer.d_steps  # one step of this many also updates G
    # the first steps are slower; on a GPU, until a graph of each kind is captured
    trainer.train(math.ceil(4 * d_steps / steps) if on_gpu else 2)
    trainer.evaluate()
    trainer.seconds = {"train": 0.0, "score": 0.0}
    started, warm_steps, taken = time.perf_counter(), trainer.gan.steps, 0
    while taken < max(3, d_steps) or time.perf_counter() - started < seconds:
        trainer.train(1)
        taken = trainer.gan.steps - warm_steps
    trainer.evaluate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if on_gpu:
        memory = torch.cuda.max_memory_reserved(device)
    step, score = trainer.seconds["train"] / taken, trainer.seconds["score"]
    return Pace(step, score, memory, precision.name(trainer.gan.precision))


def _classifier(method: Method, device: torch.device) -> Classifier:
    """The method's classifier; instead of one the sweep has yet to train, an untrained one."""
    if method.score.classifier != "trained":
        return load_classifier(method.score, device)
    dtype, (body, head) = precision.resolve(method.score.precision, device), network(classes=10)
    untrained = Classifier("none", "", prepare, body, head, device, dtype)
    return add_feature_network(untrained, method.score)
