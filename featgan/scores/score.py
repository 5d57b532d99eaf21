"""Measure the images of a generator during training, and real images for comparison.

`Score` classifies images as they would be saved, on the classifier's device. It does not change
any global random generator, flag or mode.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from featgan import precision
from featgan.scores.classifiers import Classifier, load_inception, load_packaged
from featgan.scores.inception_score import inception_score
from featgan.scores.metrics.registry import measure
from featgan.scores.metrics.statistics import FeatureStatistics, TooFew
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.scores.small_cnn import load_trained
from featgan.user_code import source_digest

Rows = TypeVar("Rows", np.ndarray, Tensor)

Generate = Callable[[int, int], Tensor]
"""`generate(start, stop)` returns uint8 images [stop - start, 3, S, S] on the device."""


@dataclass(frozen=True)
class Measurement:
    """One score and, from the same images, the further metrics."""

    score: float
    score_std: float
    """Standard deviation of the score over its splits."""
    metrics: dict[str, float]


class Score:
    """Inception Score of images, and metrics that compare them with `real` images.

    `protocol` states how the score is made, `metrics_protocol` how the metrics are.
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
        count, number_format = settings.count, precision.name(classifier.dtype)
        self.protocol = f"IS {classifier.name} n={count} splits={settings.splits} {number_format}"
        self.metrics_protocol = ""
        if real is not None and settings.metrics:
            names = " ".join(map(_protocol_name, settings.metrics))
            images = f"n={count} real={len(real)} width={real.features.shape[1]}"
            network = f"{classifier.name} {images} {number_format}"
            if classifier.feature_network:
                network = f"{classifier.feature_network.name} {images} fp32"
            self.metrics_protocol = f"{names} {network}"

    def evaluate(self, generate: Generate) -> Measurement:
        """Measure score and metrics of the first `settings.count` images of `generate` in one go.

        Raises `Diverged` if the score is not finite.
        """
        settings = self.settings
        features, logits = classify(self.classifier, generate, settings.count, settings.batch_size)
        score, deviation = inception_score(logits, settings.splits)
        return Measurement(score, deviation, self.metrics_of(features, self.real))

    def measure_real(self, features: Tensor, logits: Tensor, unseen: int) -> Measurement:
        """Measure real images as if they were generated.

        Takes a classifier's features [n, width] and logits of images in random order; it was not
        fitted to the first `unseen` of them. The score is that of `settings.count` of these, or of
        all if there are fewer; NaN if they are too few for its splits. The metrics compare a part
        of these with all other images; there are none if the images are too few for them.
        """
        count, splits, score, deviation = self.settings.count, self.settings.splits, nan, nan
        if min(unseen, count) >= 2 * splits:
            score, deviation = inception_score(logits[: min(unseen, count)], splits)
        part, others = self.parts(len(features), unseen)
        # one image has no variance
        rest = FeatureStatistics(features[-others:]) if part > 1 else None
        return Measurement(score, deviation, self.metrics_of(features[:part], rest))

    def parts(self, images: int, unseen: int) -> tuple[int, int]:
        """Return the sizes of the two parts of real images that the metrics compare.

        The first is of the first images, the second of the last, none of which is held out.
        """
        part = min(self.settings.count, unseen, images // 2)
        return part, images - max(part, len(self.real.held_out) if self.real else 0)

    def metrics_of(self, features: Tensor, real: FeatureStatistics | None) -> dict[str, float]:
        """Return the metrics of features [n, width] against those of real images, if any.

        Those for which the images are too few are left out.
        """
        found: dict[str, float] = {}
        if real is not None:
            for name in self.settings.metrics:
                with suppress(TooFew):
                    found |= measure(name, real, features)
        return found


def _protocol_name(metric: str) -> str:
    """Return a metric's name in a protocol, with its subsets or neighbours.

    A user-defined one has the digest of its source.
    """
    if metric in METRICS:
        return metric.upper() + METRICS[metric].how
    return f"{metric}-{(source_digest(metric) or 'unknown')[:6]}"


def load_classifier(
    settings: ScoreSettings, device: torch.device, trained: Path | None = None
) -> Classifier:
    """Load the classifier of `settings` onto `device`; `trained` is the file of a trained one."""
    dtype = precision.resolve(settings.precision, device)
    if settings.classifier == "inception":
        classifier = load_inception(settings.weights, device, dtype)
    elif settings.classifier == "packaged":
        classifier = load_packaged(device, dtype)
    elif trained is None:
        raise ValueError("the file of the trained classifier is missing")
    else:
        classifier = load_trained(trained, device, dtype)
    return add_feature_network(classifier, settings)


def add_feature_network(classifier: Classifier, settings: ScoreSettings) -> Classifier:
    """Return the classifier; add the network of the features if they are not its own."""
    if settings.features != "classifier":
        from featgan.scores.feature_networks import load  # imports torchvision's models

        weights, device = settings.features_weights, classifier.device
        classifier.feature_network = load(settings.features, weights, device)
    return classifier


def classify(
    classifier: Classifier, generate: Generate, count: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return features [count, width] and logits [count, classes] of a generator's images."""
    batches = [
        classifier.features_and_logits(generate(start, min(start + batch_size, count)))
        for start in range(0, count, batch_size)
    ]
    features, logits = zip(*batches, strict=True)
    return torch.cat(features), torch.cat(logits)


def drawn(read: Callable[[Rows], np.ndarray], rows: Rows) -> Generate:
    """Return a generator of the uint8 images that `read` returns for `rows`, a part at a time."""
    return lambda start, stop: torch.from_numpy(read(rows[start:stop]))
