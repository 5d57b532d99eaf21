"""The Inception Score, and the protocol that says how each number was made.

`inception_score` is a pure function of logits. `Score` takes a generator's images, as
they would be saved, through a classifier on its device, and leaves no trace: no global
generator, flag or mode is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from featgan import precision
from featgan.classifiers import Classifier, load_inception, load_torchvision
from featgan.precision import Precision
from featgan.settings import Settings
from featgan.small_cnn import load_trained, train_classifier

__all__ = [
    "Classifier",
    "Diverged",
    "Score",
    "ScoreSettings",
    "inception_score",
    "load_classifier",
    "train_classifier",
]


class Diverged(Exception):
    """A score that is no number: the classifier's logits hold NaN or infinity."""


class ScoreSettings(Settings):
    """How generated images are scored."""

    classifier: Literal["inception", "torchvision", "trained"] = "inception"
    """The literature's Inception-v3, torchvision's, or a small CNN that the sweep trains."""
    weights: str | None = None
    """File of the Inception-v3's weights; none: they are downloaded once."""
    trained_on: list[str] | None = Field(None, min_length=1)
    """Data sets whose labels train the `trained` classifier; none: the built-in ones."""
    count: int = Field(5000, ge=2)
    """Images generated for one score."""
    splits: int = Field(10, ge=1)
    """Parts of these images; the score is the mean of the parts' scores."""
    precision: Precision = "fp32"
    """Number format of the classifier: `fp32`, `bf16`, or `auto`: bf16 where hardware has it."""
    batch_size: int = Field(50, ge=1)
    """Images generated and classified at a time."""

    @model_validator(mode="after")
    def _consistent(self) -> ScoreSettings:
        if self.count < 2 * self.splits:
            raise ValueError(f"count {self.count} leaves {self.splits} splits under 2 images each")
        if self.weights is not None and self.classifier == "trained":
            raise ValueError("weights belongs to inception and torchvision; trained has its own")
        if self.trained_on is not None and self.classifier != "trained":
            raise ValueError("trained_on belongs to the classifier trained")
        return self


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """Return mean and standard deviation, over `splits`, of the Inception Score of `logits` [n, c].

    exp(mean KL(p(y|x) ‖ p(y))) of each split, in float64 (Salimans et al. 2016). Rows are
    shuffled first, with a fixed seed and as torch-fidelity does, so that images sorted by
    class score the same. Raises Diverged if a logit is not finite.
    """
    n = len(logits)
    order = np.random.RandomState(2020).permutation(n)
    logits = logits[torch.from_numpy(order).to(logits.device)]
    edges = [i * n // splits for i in range(splits + 1)]
    scores = torch.stack([_split_score(logits[a:b]) for a, b in pairwise(edges)])
    if not scores.isfinite().all():
        raise Diverged("the classifier's logits are not finite")
    return scores.mean().item(), scores.std(correction=0).item()


def _split_score(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(dim=1)
    # The mean's logarithm, taken in log space: a class that no image can be stays finite.
    log_mean = log_p.logsumexp(dim=0) - np.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp()


def load_classifier(
    settings: ScoreSettings, device: torch.device, trained: Path | None = None
) -> Classifier:
    """Load the classifier of `settings` onto `device`; `trained` is the file of a `trained` one."""
    dtype = precision.resolve(settings.precision, device)
    if settings.classifier == "inception":
        return load_inception(settings.weights, device, dtype)
    if settings.classifier == "torchvision":
        return load_torchvision(settings.weights, device, dtype)
    if trained is None:
        raise ValueError("the file of the trained classifier is missing")
    return load_trained(trained, device, dtype)


class Score:
    """Measures a generator's Inception Score; `protocol` says how."""

    def __init__(self, classifier: Classifier, settings: ScoreSettings) -> None:
        self.classifier, self.settings = classifier, settings
        self.protocol = (
            f"IS {classifier.name} n={settings.count} splits={settings.splits} "
            f"{precision.name(classifier.dtype)}"
        )

    @property
    def count(self) -> int:
        """Images of one measurement."""
        return self.settings.count

    def measure(self, generate: Callable[[int, int], Tensor]) -> tuple[float, float]:
        """Return mean and standard deviation of the score of `settings.count` images.

        `generate(start, stop)` gives uint8 images [stop - start, 3, S, S] on the device.
        Raises Diverged where the score is no number.
        """
        return inception_score(self._logits(generate, self.count), self.settings.splits)

    def measure_images(self, images: np.ndarray) -> tuple[float, float]:
        """Return the score of real uint8 `images` [n, 3, S, S]: what a generator may reach."""
        generate = lambda start, stop: torch.from_numpy(images[start:stop])  # noqa: E731
        return inception_score(self._logits(generate, len(images)), self.settings.splits)

    def _logits(self, generate: Callable[[int, int], Tensor], count: int) -> Tensor:
        size = self.settings.batch_size
        edges = range(0, count, size)
        return torch.cat([self.classifier(generate(i, min(i + size, count))) for i in edges])
