"""The `trained` classifier: a small CNN fitted in seconds to labelled images.

For sweeps that must do without a download. Its file is safetensors; the metadata say on
what it was trained and how well it does on images held out.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from featgan.errors import UserError
from featgan.scores.classifiers import Classifier

KIND = "trained classifier "
METADATA = f"{KIND}2"
"""Key, and format, of the metadata entry that describes the file; it changes with the network."""
SIZE = 32
"""Side, in pixels, to which images are averaged down: what keeps training to seconds."""
HELD_OUT = 0.15
BATCH = 64
PEAK_LEARNING_RATE = 6e-3
EPOCHS = 14
"""Epochs for few classes; from 28 classes on, half as many as classes: 60 need 30."""
SHIFT = 2
"""Training images are shifted by up to so many pixels, so that 1,200 of them suffice."""


@dataclass(frozen=True)
class Training:
    """How a `trained` classifier came about; the metadata of its file."""

    classes: tuple[str, ...]
    image_size: int
    images: int
    held_out: int
    accuracy: float
    """Share of the held-out images that are classified rightly."""
    seed: int
    epochs: int


def network(classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """Return body and head: four convolutions from 32×32 to 4×4, averaged to 64 features."""
    body = nn.Sequential(
        BasicConv2d(3, 16, kernel_size=3, stride=2, padding=1),
        BasicConv2d(16, 32, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        BasicConv2d(32, 64, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        BasicConv2d(64, 64, kernel_size=3, padding=1),  # sees the whole image
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body, nn.Linear(64, classes)


def prepare(images: Tensor) -> Tensor:
    """Return uint8 `images` [n, 3, S, S] as floats in [-1, 1], averaged down to 32×32."""
    if images.shape[-2:] != (SIZE, SIZE):
        return F.adaptive_avg_pool2d(images.float() / 127.5 - 1, SIZE)
    return images.float() / 127.5 - 1


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    seed: int,
    epochs: int | None = None,
    threads: int = 1,
) -> bytes:
    """Fit the CNN to uint8 `images` [n, 3, S, S] and `labels` [n]; return its file's bytes.

    A function of its arguments alone: the global generators are neither read nor moved.
    15% of the images, drawn with the seed, are held out to measure the accuracy. Without
    `epochs`, their number follows from that of the classes. UserError where none can be held out.
    """
    if not (held := round(HELD_OUT * len(images))):
        raise UserError(
            f"score.trained_on: {len(images)} images with labels are too few to train a classifier "
            "and hold one out to check it: 4 or more are needed"
        )
    epochs = epochs or max(EPOCHS, len(classes) // 2)
    with _alone(seed, threads):
        inputs = prepare(torch.from_numpy(np.ascontiguousarray(images)))
        inputs = inputs.to(memory_format=torch.channels_last)
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        order = torch.randperm(len(inputs))
        held_out, fitted = order.split([held, len(order) - held])
        body, head = network(len(classes))
        model = nn.Sequential(body, head).to(memory_format=torch.channels_last)
        _fit(model, inputs, targets, fitted, epochs)
        with torch.no_grad():
            rightly = model.eval()(inputs[held_out]).argmax(1) == targets[held_out]
    training = Training(
        classes=tuple(classes),
        image_size=images.shape[-1],
        images=len(images),
        held_out=len(held_out),
        accuracy=round(rightly.double().mean().item(), 4),
        seed=seed,
        epochs=epochs,
    )
    return pack(training, {name: t.contiguous() for name, t in model.state_dict().items()})


def _fit(model: nn.Module, inputs: Tensor, targets: Tensor, rows: Tensor, epochs: int) -> None:
    """Train by AdamW on a one-cycle schedule, a shuffled full pass an epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2, foreach=True)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    for _ in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(BATCH):
            loss = F.cross_entropy(model(_shifted(inputs[batch])), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _shifted(images: Tensor) -> Tensor:
    """Return the whole batch shifted by a random step, its border repeated."""
    top, left = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    return padded[:, :, top : top + SIZE, left : left + SIZE]


@contextmanager
def _alone(seed: int, threads: int) -> Iterator[None]:
    """Seed the CPU's generator and set the threads for a while, and put both back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.set_num_threads(threads)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def pack(training: Training, tensors: dict[str, Tensor]) -> bytes:
    """Return a safetensors file; its one metadata entry holds `training` and a digest of all."""
    about = {"training": asdict(training), "sha256": _digest(training, tensors)}
    return save(tensors, {METADATA: json.dumps(about)})


def unpack(data: bytes, path: str | Path) -> tuple[Training, str, dict[str, Tensor]]:
    """Return training, digest and tensors of a file's bytes, which came from `path`.

    Raises UserError where they are damaged, or of a classifier that scores otherwise.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if METADATA not in metadata and any(key.startswith(KIND) for key in metadata):
            raise UserError(
                f"{path}: a classifier of another version of featgan, whose scores cannot be "
                "compared: delete it and sweep again, which trains its runs anew"
            )
        about = json.loads(metadata[METADATA])
        classes = tuple(about["training"].pop("classes"))
        training, tensors = Training(classes, **about["training"]), load(data)
        if about["sha256"] != (digest := _digest(training, tensors)):
            raise ValueError("its digest does not fit its content")
    except (struct.error, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path}: no whole file of a trained classifier ({error}): delete it and sweep again"
        ) from error
    return training, digest, tensors


def _digest(training: Training, tensors: dict[str, Tensor]) -> str:
    about = json.dumps(asdict(training), sort_keys=True).encode()
    return hashlib.sha256(about + save(tensors)).hexdigest()


def load_trained(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Load what `train_classifier` returned, from `path`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}): sweep again, which trains the classifier"
        ) from error
    training, digest, tensors = unpack(data, path)
    with torch.random.fork_rng(devices=[]):
        body, head = network(len(training.classes))
    nn.Sequential(body, head).load_state_dict(tensors)
    return Classifier(
        name=f"trained-cnn2-{digest[:6]}",
        digest=digest,
        description=(
            f"a small CNN trained on {training.images - training.held_out} images of "
            f"{len(training.classes)} classes, {training.accuracy:.0%} right on "
            f"{training.held_out} held out"
        ),
        prepare=prepare,
        body=body,
        head=head,
        device=device,
        dtype=dtype,
    )
