"""The Inception Score, and the protocol that says how each number was made.

`inception_score` is a pure function of logits. `Score` takes a generator's images, as
they would be saved, through a classifier on its device, and leaves no trace: no global
generator, flag or mode is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featgan import precision
from featgan.scores.classifiers import Classifier, load_inception, load_torchvision
from featgan.scores.metrics import FeatureStatistics, TooFew, measure
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.scores.small_cnn import load_trained, train_classifier
from featgan.user_code import source_digest

__all__ = [
    "Classifier",
    "Diverged",
    "FeatureStatistics",
    "Measurement",
    "Score",
    "classify",
    "drawn",
    "inception_score",
    "load_classifier",
    "real_statistics",
    "train_classifier",
]


Generate = Callable[[int, int], Tensor]
"""`generate(start, stop)` gives uint8 images [stop - start, 3, S, S] on the device."""


class Diverged(Exception):
    """A score that is no number: the classifier's logits hold NaN or infinity."""


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


@dataclass(frozen=True)
class Measurement:
    """One score and, from the same images, the further metrics."""

    score: float
    score_std: float
    """Standard deviation of the score over its splits."""
    metrics: dict[str, float]


class Score:
    """Measures a generator's images: the Inception Score, and metrics against `real` images.

    `protocol` says how the score is made, `metrics_protocol` how the metrics are.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: ScoreSettings,
        real: FeatureStatistics | None = None,
    ) -> None:
        if settings.metrics and real is None:
            raise ValueError(f"{', '.join(settings.metrics)} need features of real images")
        self.classifier, self.settings, self.real = classifier, settings, real
        self._format = precision.name(classifier.dtype)
        self.protocol = (
            f"IS {classifier.name} n={settings.count} splits={settings.splits} {self._format}"
        )

    @property
    def count(self) -> int:
        """Images of one measurement."""
        return self.settings.count

    @property
    def metrics_protocol(self) -> str:
        """How the further metrics are made; empty without any."""
        if self.real is None or not self.settings.metrics:
            return ""
        names = " ".join(map(_spelled, self.settings.metrics))
        return f"{names} {self.classifier.name} n={self.count} real={len(self.real)} {self._format}"

    def measure(self, generate: Generate) -> tuple[float, float]:
        """Return mean and standard deviation of the score alone; see `evaluate`."""
        _, logits = classify(self.classifier, generate, self.count, self.settings.batch_size)
        return inception_score(logits, self.settings.splits)

    def evaluate(self, generate: Generate) -> Measurement:
        """Measure score and metrics of the first `count` images of `generate`, in one pass.

        Raises Diverged where the score is no number.
        """
        size = self.settings.batch_size
        features, logits = classify(self.classifier, generate, self.count, size)
        score, deviation = inception_score(logits, self.settings.splits)
        return Measurement(score, deviation, self._metrics(features, self.real))

    def measure_images(self, images: np.ndarray) -> Measurement:
        """Measure real uint8 `images` [n, 3, S, S] as if generated: what a generator may reach.

        Scores `count` of them, drawn with a fixed seed, or all where there are fewer. The
        metrics compare `count`, at most half of all, with the others.
        """
        rows = np.random.RandomState(2020).permutation(len(images))
        rows = rows if self.settings.metrics else rows[: self.count]
        generate = drawn(lambda some: images[some], rows)
        size = self.settings.batch_size
        return self.measure_real(*classify(self.classifier, generate, len(rows), size))

    def measure_real(self, features: Tensor, logits: Tensor) -> Measurement:
        """The same from a classifier's features [n, width] and logits of images in random order.

        There are no metrics where half of the images are too few for them.
        """
        score, deviation = inception_score(logits[: self.count], self.settings.splits)
        part, _ = self.halves(len(features))
        metrics: dict[str, float] = {}
        if part > 1:  # one image has no spread
            with suppress(TooFew):
                metrics = self._metrics(features[:part], FeatureStatistics(features[part:]))
        return Measurement(score, deviation, metrics)

    def halves(self, images: int) -> tuple[int, int]:
        """How many of so many real images the metrics compare with how many others."""
        part = min(self.count, images // 2)
        return part, images - part

    def _metrics(self, features: Tensor, real: FeatureStatistics | None) -> dict[str, float]:
        found: dict[str, float] = {}
        if real is not None:
            for name in self.settings.metrics:
                found |= measure(name, real, features)
        return found


def _spelled(metric: str) -> str:
    """A metric in a protocol; a function of the user's own with the start of its file's digest."""
    if metric in METRICS:
        return metric.upper()
    return f"{metric}-{(source_digest(metric) or 'unknown')[:6]}"


def real_statistics(
    classifier: Classifier, images: np.ndarray, batch_size: int = 50
) -> FeatureStatistics:
    """Return what metrics need of real uint8 `images` [n, 3, S, S]; computed once for a run."""
    generate = drawn(lambda some: images[some], np.arange(len(images)))
    return FeatureStatistics(classify(classifier, generate, len(images), batch_size)[0])


def classify(
    classifier: Classifier, generate: Generate, count: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return features [count, width] and logits [count, classes] of a generator's images."""
    features, logits = [], []
    for start in range(0, count, batch_size):
        images = generate(start, min(start + batch_size, count))
        of_batch = classifier.features_and_logits(images)
        features.append(of_batch[0])
        logits.append(of_batch[1])
    return torch.cat(features), torch.cat(logits)


def drawn(read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> Generate:
    """Real images in the order of `rows` as if generated; `read` gives uint8 images of rows."""
    return lambda start, stop: torch.from_numpy(read(rows[start:stop]))
