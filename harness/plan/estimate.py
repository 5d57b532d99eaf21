"""What a sweep will cost, told before it runs: steps, images, bytes, memory, and hours.

`estimate` reckons from the sweep file and the lists of images; `probe` times real steps and
a real score of made-up images on this machine. Neither writes anything.
"""

from __future__ import annotations

import json
import math
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from featgan import precision
from featgan.batches import RESIDENT_BYTES, RESIDENT_SHARE, resident_bytes
from featgan.errors import UserError
from featgan.gans.registry import networks_of
from featgan.gans.settings import RECIPES, GanSettings
from featgan.scores.inception_score import (
    Classifier,
    FeatureStatistics,
    Score,
    load_classifier,
    train_classifier,
)
from featgan.staging.stages import plan
from featgan.trainer import StagedTrainer
from harness.plan.settings import Cell, Method, Resources, Sweep

PROBE_SECONDS = 30.0
MOST_STEPS = 50
"""Of an epoch of the probe, so that it ends in time."""
PROCESS_BYTES = 680 * 2**20
"""A process that has loaded PyTorch and Ray and trains nothing."""
KEPT_CHECKPOINTS = 2
FLOAT, DOUBLE = 4, 8
INCEPTION_FEATURES, SMALL_CNN_FEATURES = 2048, 64
FEATURE_COPIES = 3
"""The features, and what a covariance makes of them for a while."""
CLASSES = 1008
"""Of Inception's; a classifier of the sweep's own has fewer."""
INCEPTION_BYTES, INCEPTION_IMAGE_BYTES = 95 * 2**20, 16 * 2**20
"""Measured: the network, and each image of a batch in it."""
CONTEXT_BYTES = 512 * 2**20
"""What CUDA itself takes of a GPU for each process."""
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Estimate:
    """The cost of runs, summed; groups are taken to be of equal size."""

    runs: int = 0
    steps: int = 0
    images: int = 0
    """Real images trained on."""
    evaluations: int = 0
    score_images: int = 0
    checkpoint_bytes: int = 0
    """Of all checkpoints kept, at most: before a peak is decided a run may keep several models."""
    memory: int = 0
    """Bytes of the largest run."""

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.runs + other.runs,
            self.steps + other.steps,
            self.images + other.images,
            self.evaluations + other.evaluations,
            self.score_images + other.score_images,
            self.checkpoint_bytes + other.checkpoint_bytes,
            max(self.memory, other.memory),
        )


def estimate(cell: Cell, images: int) -> Estimate:
    """What the run of a cell on a data set of so many images will cost."""
    method, training = cell.method, cell.method.training
    k = method.groups.k
    steps = evaluations = 0
    for stage in cell.stages:
        current = max(1, images * len(stage.groups) // k)
        epoch = training.epoch_steps or math.ceil(current / training.batch_size)
        steps += stage.epochs * epoch
        evaluations += stage.epochs // training.evaluate_every
    model, kept = model_bytes(method), method.stages.models_kept
    return Estimate(
        runs=1,
        steps=steps,
        images=steps * training.batch_size,
        evaluations=evaluations,
        score_images=evaluations * method.score.count,
        checkpoint_bytes=KEPT_CHECKPOINTS * (1 + kept) * model,
        memory=PROCESS_BYTES
        + resident_bytes(images, method.image_size, RESIDENT_BYTES)
        + (3 + 2 * kept)
        * model  # in use and kept; and while a checkpoint is written a copy, its bytes
        + step_bytes(method)
        + classifier_bytes(method)
        + score_bytes(method)
        + metrics_bytes(method, images),
    )


def model_bytes(method: Method) -> int:
    """Bytes of both networks with Adam's two moments of every parameter, and G's average."""
    generator, discriminator = _sizes(method.gan.model_dump_json(), method.image_size)
    average = generator.values if method.gan.ema else 0
    return FLOAT * (generator.stored + discriminator.stored + average)


def step_bytes(method: Method) -> int:
    """Bytes of a step's activations, about: those of G once, and of D for two batches."""
    generator, discriminator = _sizes(method.gan.model_dump_json(), method.image_size)
    return FLOAT * method.training.batch_size * (generator.outputs + 2 * discriminator.outputs)


def classifier_bytes(method: Method) -> int:
    """Bytes of a classifier of Inception's size, activations included; of the small CNN none."""
    if method.score.classifier == "trained":
        return 0
    return INCEPTION_BYTES + method.score.batch_size * INCEPTION_IMAGE_BYTES


def score_bytes(method: Method) -> int:
    """Bytes of features and logits of all images of a score: in parts, joined, and in float64."""
    joined = 2 * FLOAT * (_width(method) + CLASSES) + 2 * DOUBLE * CLASSES
    doubled = 2 * DOUBLE * _width(method) if method.score.metrics else 0
    return method.score.count * (joined + doubled)


def metrics_bytes(method: Method, images: int) -> int:
    """Bytes of the real images' features, in float64, where metrics need them; 0 elsewhere."""
    if not method.score.metrics:
        return 0
    return FEATURE_COPIES * DOUBLE * images * _width(method)


def _width(method: Method) -> int:
    """Features that the classifier gives for an image."""
    return SMALL_CNN_FEATURES if method.score.classifier == "trained" else INCEPTION_FEATURES


class _Size(NamedTuple):
    """Numbers that a network holds."""

    values: int
    """Parameters and buffers."""
    stored: int
    """Those, and Adam's two moments of every parameter."""
    outputs: int
    """Of all layers, for one image."""


@cache
def _sizes(gan: str, image_size: int) -> list[_Size]:
    """Of generator and discriminator; `gan` are settings as JSON. Ours are built without memory."""
    settings = GanSettings.model_validate_json(gan)
    with torch.device("meta" if settings.network in RECIPES else "cpu"), torch.no_grad():
        networks = networks_of(settings)(settings, image_size)
        latent = torch.zeros(2, settings.latent)  # two: batch norm refuses a single value
        sizes, given = [], latent
        for network in networks:
            outputs: list[int] = []
            for layer in network.modules():
                if not [*layer.children()]:
                    layer.register_forward_hook(
                        lambda _, __, out, to=outputs: to.append(out.numel())
                    )
            given = network(given)
            parameters = sum(value.numel() for value in network.parameters())
            values = parameters + sum(value.numel() for value in network.buffers())
            sizes.append(_Size(values, values + 2 * parameters, sum(outputs) // 2))
    return sizes


def describe(sweep: Sweep) -> str:
    """The estimate of a whole sweep, as `--dry-run` prints it."""
    try:
        images = _images(sweep)
    except UserError as error:  # settings can be checked where the images are not
        return f"estimate: none yet: {error}"
    total = sum((estimate(cell, images[cell.data]) for cell in sweep.cells()), Estimate())
    return "\n".join(
        [
            "estimate, feature groups taken to be of equal size:",
            "  images: " + ", ".join(f"{name} {count:,}" for name, count in images.items()),
            f"  training: {total.steps:,} steps, {total.images:,} images",
            f"  scoring: {total.evaluations:,} evaluations, {total.score_images:,} images",
            f"  checkpoints: at most {total.checkpoint_bytes / MIB:,.0f} MiB",
            f"  memory of a run: about {total.memory / GIB:.1f} GiB",
        ]
    )


@dataclass(frozen=True)
class Pace:
    """What was measured of one kind of run."""

    step_seconds: float
    score_seconds: float
    memory: int
    """Bytes: on a GPU of it, else of the process."""
    precision: str


def probe(sweep: Sweep) -> str:
    """Time each kind of run for its share of half a minute; hours of the sweep, runs that fit."""
    images = _images(sweep)
    methods: dict[str, Method] = {}
    most: dict[str, int] = {}  # images of the largest data set
    work: dict[str, Estimate] = {}
    for cell in sweep.cells():
        kind = _kind(cell.method)
        methods[kind] = cell.method
        most[kind] = max(most.get(kind, 0), images[cell.data])
        work[kind] = work.get(kind, Estimate()) + estimate(cell, images[cell.data])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = len(sweep.cells())
    lines, hours, at_once = [], 0.0, runs
    for kind, method in methods.items():
        share = PROBE_SECONDS / len(methods)
        pace = measure(method, most[kind], sweep.resources, device, share)
        lines.append(
            f"  {work[kind].runs} runs of {method.gan.network} at {method.image_size} px, "
            f"width {method.gan.width}, "
            f"{pace.precision}: {pace.step_seconds * 1e3:.1f} ms a step, "
            f"{pace.score_seconds:.2f} s a score, {pace.memory / GIB:.1f} GiB"
        )
        hours += work[kind].steps * pace.step_seconds / 3600
        hours += work[kind].evaluations * pace.score_seconds / 3600
        memory = pace.memory
        if device.type == "cuda":
            room = RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
            memory += unmeasured_bytes(method, most[kind], room)
        at_once = min(at_once, fitting(memory, sweep.resources, device))
    return "\n".join(
        [
            f"probe on this machine's {device.type}, with whatever else it is doing now:",
            *lines,
            f"  one run after another: {hours:.2f} hours",
            _on_gpus(at_once, hours, runs)
            if device.type == "cuda"
            else f"  {at_once} at once, as fit here: {_on(at_once, hours, runs):.2f} hours",
        ]
    )


def _on_gpus(fit: int, hours: float, runs: int) -> str:
    """What fits on each GPU, whatever the file asks for; runs that share one share its time."""
    gpus, share = torch.cuda.device_count(), int(1000 / fit) / 1000
    return (
        f"  {fit} of them fit on each GPU (resources.gpus_per_run: {share:g}) and share its time; "
        f"{gpus} GPUs here: about {_on(gpus, hours, runs):.2f} hours or less"
    )


def _on(slots: int, hours: float, runs: int) -> float:
    """Hours of so many runs on so many slots: the last of them may have a round of its own."""
    return hours * math.ceil(runs / slots) / runs


def unmeasured_bytes(method: Method, images: int, room: float) -> int:
    """What a run has on its GPU beside what a probe of made-up images has: its own images, where
    they take no more than `room`, the models of its peaks, the context."""
    ours = resident_bytes(images, method.image_size, room)
    return ours + (1 + method.stages.models_kept) * model_bytes(method) + CONTEXT_BYTES


def measure(
    method: Method, real: int, resources: Resources, device: torch.device, seconds: float
) -> Pace:
    """Train about `seconds` on made-up images, and score once, with metrics of `real` images."""
    torch.set_num_threads(resources.cpus_per_run)
    images = _MadeUp(method)
    classifier = _classifier(method, images, device)
    made_up = torch.randn(real, classifier.width, device=classifier.device)
    groups = np.resize(np.arange(1, method.groups.k + 1), len(images))
    steps = 1
    if on_gpu := device.type == "cuda":
        torch.cuda.empty_cache()  # what other kinds left
        torch.cuda.reset_peak_memory_stats(device)
        steps = _epoch_steps(method, real)
    training = method.training.model_copy(update={"epoch_steps": steps})
    trainer = StagedTrainer(
        images,
        groups,
        plan("conventional", method.groups.k, training.stage_epochs),
        Score(classifier, method.score, FeatureStatistics(made_up)),
        gan=method.gan,
        training=training,
        seed=0,
        device=device,
        pacing=method.pacing,
        image_scores=np.arange(len(images)),
    )
    d_steps = trainer.gan.optimizer.d_steps  # one of so many also updates G
    # the first steps are slower; on a GPU, until both kinds are recorded
    trainer.train(math.ceil(4 * d_steps / steps) if on_gpu else 2)
    trainer.evaluate()
    warm_train, warm_score = trainer.seconds["train"], trainer.seconds["score"]
    started, warm_steps, taken = time.perf_counter(), trainer.gan.steps, 0
    while taken < max(3, d_steps) or time.perf_counter() - started < seconds:
        trainer.train(1)
        taken = trainer.gan.steps - warm_steps
    trainer.evaluate()
    return Pace(
        (trainer.seconds["train"] - warm_train) / taken,
        trainer.seconds["score"] - warm_score,
        torch.cuda.max_memory_reserved(device)
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        precision.name(trainer.gan.precision),
    )


def _epoch_steps(method: Method, images: int) -> int:
    """Steps of an epoch; on a GPU one of a single step would measure its start."""
    epoch = method.training.epoch_steps or math.ceil(images / method.training.batch_size)
    return min(epoch, MOST_STEPS)


def fitting(memory: int, resources: Resources, device: torch.device) -> int:
    """How many runs of so much memory fit on each GPU, or on this machine's cores; at least one."""
    if device.type == "cuda":
        return max(1, torch.cuda.get_device_properties(device).total_memory // memory)
    cores = os.cpu_count() or 1
    fits = min(cores // resources.cpus_per_run, resources.max_concurrent or cores)
    return max(1, min(fits, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // memory))


class _MadeUp:
    """Random images of a method's size."""

    def __init__(self, method: Method) -> None:
        self.size: int = method.image_size
        shape = (max(256, method.training.batch_size), 3, self.size, self.size)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]


def _classifier(method: Method, images: _MadeUp, device: torch.device) -> Classifier:
    """The method's classifier; the sweep's own CNN is not trained yet: one as quick instead."""
    if method.score.classifier != "trained":
        return load_classifier(method.score, device)
    labels = np.arange(len(images)) % 10
    data = train_classifier(images.pixels, labels, [*map(str, range(10))], seed=0, epochs=1)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return load_classifier(method.score, device, Path(file.name))


def _images(sweep: Sweep) -> dict[str, int]:
    """Images of each data set, those included that will turn out to be unreadable."""
    names = dict.fromkeys(cell.data for cell in sweep.cells())
    return {name: len(sweep.data[name].listing(sweep.image_size).images) for name in names}


def _kind(method: Method) -> str:
    """Equal for methods whose steps and scores cost the same."""
    about = method.model_dump(mode="json", include={"image_size", "gan", "score"})
    of_steps = {"batch_size", "precision", "d_steps", "deterministic"}
    training = method.training.model_dump(mode="json", include=of_steps)
    return json.dumps([about, training, method.pacing.by])
