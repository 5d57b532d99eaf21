"""The `trained` classifier: a small CNN fitted in seconds to labelled images.

It is for sweeps that need no download. The header of its file describes its training and its
accuracy on held-out images.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featgan import tensor_file
from featgan.errors import UserError
from featgan.scores.classifiers import Classifier

KIND = "trained classifier 2"
"""Kind of the file; its number changes with the network."""
SIZE = 32
"""Side, in pixels, to which images are averaged down, so that training takes seconds."""
HELD_OUT = 0.15
BATCH = 64
PEAK_LEARNING_RATE = 6e-3
EPOCHS = 14
"""Fewest epochs; with more than 28 classes there are half as many as classes: 60 need 30."""
SHIFT = 2
"""Pixels by which training images are shifted at most, so that 1,200 of them suffice."""


def conv_block(channels: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, batch norm and ReLU, as in Inception-v3."""
    conv = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=0.001)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


def network(classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """Return body and head: four convolutions from 32×32 to 4×4, averaged to 64 features."""
    body = nn.Sequential(
        conv_block(3, 16, stride=2),
        conv_block(16, 32),
        nn.MaxPool2d(2),
        conv_block(32, 64),
        nn.MaxPool2d(2),
        conv_block(64, 64),  # its receptive field is the whole image
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body, nn.Linear(64, classes)


def prepare(images: Tensor) -> Tensor:
    """Return uint8 `images` [n, 3, S, S] as floats in [-1, 1], averaged down to 32×32."""
    return F.adaptive_avg_pool2d(images.float() / 127.5 - 1, SIZE)


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    seed: int,
    epochs: int | None = None,
) -> bytes:
    """Fit the CNN to uint8 `images` [n, 3, S, S] and `labels` [n]; return the bytes of its file.

    The result depends on the arguments alone; global random generators keep their states. 15% of
    the images, drawn with the seed, are held out to measure the accuracy. The default of `epochs`
    follows from the number of classes. Raises `UserError` if there are too few images.
    """
    if not round(HELD_OUT * len(images)):
        raise UserError(
            f"score.trained_on: {len(images)} labelled images are too few to train a classifier "
            "and to hold one out: 4 or more are needed"
        )
    epochs = epochs or max(EPOCHS, len(classes) // 2)
    with _seeded_on_one_thread(seed):
        inputs = prepare(torch.from_numpy(np.ascontiguousarray(images)))
        inputs = inputs.to(memory_format=torch.channels_last)
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        held_out, fitted = split(len(inputs), torch.default_generator)
        body, head = network(len(classes))
        model = nn.Sequential(body, head).to(memory_format=torch.channels_last)
        _fit(model, inputs, targets, fitted, epochs)
        with torch.no_grad():
            correct = model.eval()(inputs[held_out]).argmax(1) == targets[held_out]
    header = {
        "classes": classes,
        "image_size": images.shape[-1],
        "images": len(images),
        "held_out": len(held_out),
        "accuracy": round(correct.double().mean().item(), 4),
        "seed": seed,
        "epochs": epochs,
    }
    return tensor_file.dump(KIND, header, model.state_dict())


def split(images: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the rows that are held out and those that are fitted, of so many images."""
    held = round(HELD_OUT * images)
    held_out, fitted = torch.randperm(images, generator=random).split([held, images - held])
    return held_out, fitted


def _fit(model: nn.Module, inputs: Tensor, targets: Tensor, rows: Tensor, epochs: int) -> None:
    """Train with AdamW on a one-cycle schedule; an epoch is one full pass in random order."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2, foreach=True)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    for _ in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(BATCH):
            top, left = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
            padded = F.pad(inputs[batch], (SHIFT,) * 4, mode="replicate")
            shifted = padded[:, :, top : top + SIZE, left : left + SIZE]
            loss = F.cross_entropy(model(shifted), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@contextmanager
def _seeded_on_one_thread(seed: int) -> Iterator[None]:
    """Seed the CPU's generator and compute on one thread; restore both afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def read_trained(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Return the header, tensors and digest of a file that `train_classifier` made."""
    advice = "delete it and run the sweep again, which trains the classifier again"
    return tensor_file.read(path, KIND, advice)


def load_trained(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Load the classifier of a file that `train_classifier` made."""
    header, tensors, digest = read_trained(path)
    with torch.random.fork_rng(devices=[]):
        body, head = network(len(header["classes"]))
    nn.Sequential(body, head).load_state_dict(tensors)
    name = f"trained-cnn2-{digest[:6]}"
    return Classifier(name, digest, prepare, body, head, device, dtype)
