"""The real images of a data set, measured as generated ones, and their features for metrics.

The score is measured under a run's own protocol. All is made once for each data set and way of
scoring, through Ray, next to the feature table.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from pydantic import ValidationError

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings
from featgan.scores import feature_file, image_quality
from featgan.scores.score import Score, classify, drawn, load_classifier
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.user_code import source_digest
from harness.cluster import connect, machine
from harness.cluster.connect import Progress
from harness.preparation.classifier import unseen
from harness.records.data_set import DataSet, held_out, load_table, open_pack
from harness.records.sweep_records import CountStatistics, RealRecord
from harness.runs.rescore import QUALITY_IMAGES, TRAINING_IMAGES, count_features
from harness.storage.store import Store

BATCH = 50
"""Real images classified at a time."""
CLASSIFIER_SETTINGS = {"classifier", "weights", "trained_on", "precision", "features"}
"""Settings of the score that features depend on."""


class ChosenClassifier(NamedTuple):
    """The classifier of a run, as far as its settings do not say."""

    key: str | None
    """Store key of the file of a classifier that the sweep trains."""
    digest: str | None
    """Hashes of that file, and of the files of weights that the settings name."""
    trained_on: tuple[DataSet, ...] = ()


@dataclass(frozen=True)
class RealImages:
    """The real images of a data set, and how they are measured."""

    name: str
    """Name of the data record."""
    data: DataSet
    settings: ScoreSettings
    classifier: ChosenClassifier
    features: FeatureSettings
    groups: FeatureGroups | None
    """Groups by feature count, if there are any."""
    gpu: bool

    @property
    def features_key(self) -> str | None:
        """Store key of the features that metrics need; None without metrics."""
        return self._key("safetensors") if self.settings.metrics else None

    def _key(self, suffix: str, *more: Any) -> str:
        chosen = self.settings.model_dump(mode="json", include=CLASSIFIER_SETTINGS)
        data = self.data.digest, self.data.held_out
        made_from = [feature_file.KIND, *data, chosen, self.classifier.digest, self.gpu]
        return f"{self.data.key}/real/{short_hash(made_from, *more)}.{suffix}"

    def measure(self, store: Store, cpus: int, progress: Progress) -> RealRecord:
        """Return the measurements; write the features if metrics need them.

        Raises UserError where the classifier is missing, or the images are too few for a metric.
        """
        settings, features_key, images = self.settings, self.features_key, self.data.images
        held = int(held_out(store, self.data).sum())
        smaller, apart = min(images - held, held or images), f", {held} held out" if held else ""
        for metric in settings.metrics:  # else each run would fail, hours later
            if metric in METRICS and smaller < (fewest := METRICS[metric].fewest_real):
                raise UserError(
                    f"data.{self.data.name}: its images, {images} in all{apart}, are too few for "
                    f"the metric {metric}: it takes {fewest} or more; leave it out of "
                    "score.metrics, or add images"
                )
        user_code = [source_digest(metric) for metric in settings.metrics]
        of_score = settings.count, settings.splits, settings.metrics, user_code
        key = self._key("json", *of_score, self.name, repr(self.groups))
        if not features_key or store.exists(features_key):
            with suppress(FileNotFoundError, ValidationError):  # a damaged one is measured again
                return RealRecord.model_validate_json(store.get(key))
        connect.await_room({"CPU": cpus, "GPU": int(self.gpu)}, progress)
        progress(f"{self.data.name}: scoring the real images, to compare generated ones", 0, None)
        content = ray.get(
            _measure.options(num_cpus=cpus, num_gpus=int(self.gpu)).remote(self, store, cpus)
        )
        store.put(key, content)
        return RealRecord.model_validate_json(content)


@ray.remote
def _measure(of: RealImages, store: Store, threads: int) -> bytes:
    """Classify the real images, all of them if metrics need features; return the RealRecord."""
    torch.set_num_threads(threads)
    settings, trained, features_key = of.settings, of.classifier.key, of.features_key
    device = machine.device(of.gpu)
    classifier = load_classifier(settings, device, store.local(trained) if trained else None)
    pack = open_pack(store, of.data.key)
    order = np.random.RandomState(2020).permutation(len(pack))
    held = held_out(store, of.data)
    first = (held if held.any() else unseen(store, of.classifier.trained_on, of.data))[order]
    order, images = np.concatenate((order[first], order[~first])), int(first.sum())
    ours, training = (order[:images], order[images:]) if held.any() else (order, order)
    wanted = features_key is not None and not store.exists(features_key)
    rows = order if wanted else order[: settings.count]
    features, logits = classify(classifier, drawn(pack.rows, rows), len(rows), BATCH)
    real = None
    if features_key:
        if wanted:
            name, count = Path(features_key).stem, int(held.sum())
            store.put(features_key, feature_file.dump(features, classifier, name, count))
        real = feature_file.read(str(store.local(features_key)), classifier)
        features = torch.cat((real.held_out, real.features))
    score = Score(classifier, settings, real)
    found = score.measure_real(features, logits, images)
    sample, others = pack.rows(ours[:QUALITY_IMAGES]), pack.rows(training[:TRAINING_IMAGES])
    counts = count_features(of.features, sample, device.type)
    group_counts = {}
    if of.groups:
        of_originals = load_table(store, of.data.key)["feature_count"].to_numpy()
        numbers = of.groups.assign(of_originals[order[: len(counts)]])
        group_counts = {n: CountStatistics.of(counts[numbers == n]) for n in {*numbers.tolist()}}
    return RealRecord(
        name=of.name,
        digest=of.data.digest,
        protocol=score.protocol,
        metrics_protocol=score.metrics_protocol,
        images=min(images, settings.count),
        metrics_images=score.parts(len(features), images) if found.metrics else None,
        features_key=features_key,
        qualities=image_quality.measure(sample, others, same=not held.any()),
        held_out=of.data.held_out,
        feature_counts=CountStatistics.of(counts),
        group_counts=group_counts,
        **vars(found),
    ).to_json()
