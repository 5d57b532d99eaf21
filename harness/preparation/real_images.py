"""The score of a data set's real images, and their features, which metrics compare with.

The score is measured under a run's own protocol: it is the ceiling of generated images. It is
made once for each data set and way of scoring, through Ray, next to the feature table.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
import torch
from pydantic import ValidationError

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.scores import feature_file
from featgan.scores.score import Score, classify, drawn, load_classifier
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.user_code import source_digest
from harness.cluster import machine
from harness.records.data_set import DataSet, open_pack
from harness.records.sweep_records import RealScore
from harness.storage.store import Store

BATCH = 50
"""Real images classified at a time."""
CLASSIFIER_SETTINGS = {"classifier", "weights", "trained_on", "precision"}
"""Settings of the score that features depend on."""


class ChosenClassifier(NamedTuple):
    """The classifier of a run, as far as its settings do not say."""

    key: str | None
    """Store key of the file of a classifier that the sweep trains."""
    digest: str | None
    """Hash of that file, or of the file of weights that the settings name."""


def measure(
    data: DataSet,
    settings: ScoreSettings,
    classifier: ChosenClassifier,
    store: Store,
    *,
    cpus: int,
    gpu: bool,
) -> tuple[RealScore, str | None]:
    """Return the score of the real images and, if metrics need them, the key of their features.

    Raises UserError where the classifier is missing, or the images are too few.
    """
    _check_enough(data, settings)
    chosen = settings.model_dump(mode="json", include=CLASSIFIER_SETTINGS)
    made_from = [data.digest, chosen, classifier.digest, gpu]
    user_code = [source_digest(metric) for metric in settings.metrics]
    name = short_hash(made_from, settings.count, settings.splits, settings.metrics, user_code)
    key = f"{data.key}/real/{name}.json"
    features_key = None
    if settings.metrics:
        features_key = f"{data.key}/real/{short_hash(made_from)}.safetensors"
    score = _read(store, key)
    if score is None or (features_key and not store.exists(features_key)):
        task = _measure.options(num_cpus=cpus, num_gpus=int(gpu))
        content = ray.get(
            task.remote(store, data, settings, classifier.key, cpus, gpu, features_key)
        )
        store.put(key, content)
        score = RealScore.model_validate_json(content)
    return score, features_key


def _check_enough(data: DataSet, settings: ScoreSettings) -> None:
    """Raise UserError where the real images are too few for the score, or for one of its metrics.

    Otherwise each run would fail, hours later.
    """
    few = f"data.{data.name}: its images, {data.images} in all, are too few for"
    if data.images < 2 * settings.splits:  # as for `count`: the score of one image is always 1
        raise UserError(
            f"{few} score.splits, which is {settings.splits}: a split takes 2 or more; lower it, "
            "or add images"
        )
    for metric in settings.metrics:
        if metric in METRICS and data.images < (fewest := METRICS[metric].fewest_real):
            raise UserError(
                f"{few} the metric {metric}: it takes {fewest} or more; leave it out of "
                "score.metrics, or add images"
            )


def _read(store: Store, key: str) -> RealScore | None:
    """Return an earlier measurement; None if there is none or it is damaged."""
    try:
        return RealScore.model_validate_json(store.get(key))
    except (FileNotFoundError, ValidationError):
        return None


@ray.remote
def _measure(
    store: Store,
    data: DataSet,
    settings: ScoreSettings,
    trained: str | None,
    threads: int,
    gpu: bool,
    features_key: str | None,
) -> bytes:
    """Classify the real images, all of them if metrics need features; return the RealScore."""
    torch.set_num_threads(threads)
    device = machine.device(gpu)
    classifier = load_classifier(settings, device, store.local(trained) if trained else None)
    pack = open_pack(store, data.key)
    order = np.random.RandomState(2020).permutation(len(pack))
    kept = features_key is not None and store.exists(features_key)
    rows = order if features_key and not kept else order[: settings.count]
    features, logits = classify(classifier, drawn(pack.rows, rows), len(rows), BATCH)
    real = None
    if features_key:
        if not kept:
            of_pack = features[torch.from_numpy(np.argsort(order))]
            name = Path(features_key).stem
            store.put(features_key, feature_file.dump(of_pack, classifier, name))
        real = feature_file.read(str(store.local(features_key)), classifier)
        features = real.features[torch.from_numpy(order)]
    score = Score(classifier, settings, real)
    found = score.measure_real(features, logits)
    record = RealScore(
        name=data.name,
        digest=data.digest,
        protocol=score.protocol,
        images=min(len(logits), settings.count),
        score=found.score,
        score_std=found.score_std,
        metrics=found.metrics,
        metrics_images=score.halves(len(features)) if found.metrics else None,
    )
    return record.to_json()
