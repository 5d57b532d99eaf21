"""What a sweep's judge says of the real images: their features, kept for metrics, and the ceiling.

The ceiling is the score of real images under a run's own protocol. Made once for each data set
and way of scoring, through Ray, beside the feature table.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import ray
import torch
from pydantic import ValidationError

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.images.pack import ImagePack
from featgan.scores import feature_file
from featgan.scores.inception_score import Score, classify, drawn, load_classifier
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.user_code import source_digest
from harness.cluster import machine
from harness.records.data_set import DataSet
from harness.records.sweep_records import RealScore
from harness.storage.store import Store

BATCH = 50
"""Real images classified at a time."""
OF_JUDGE = {"classifier", "weights", "trained_on", "precision"}
"""Settings of the score that features depend on."""


def measure(
    data: DataSet,
    settings: ScoreSettings,
    classifier: tuple[str, str] | None,
    store: Store,
    *,
    cpus: int,
    gpu: bool,
) -> tuple[RealScore, str | None]:
    """The score of the real images and, where metrics need them, the store key of their features.

    `classifier` is key and digest of a `trained` one. Raises `UserError` where the classifier is
    not to be had, or the images are too few.
    """
    _check_enough(data, settings)
    judge = [
        data.digest,
        settings.model_dump(mode="json", include=OF_JUDGE),
        _judge(settings, classifier),
        gpu,
    ]
    asked = [judge, settings.count, settings.splits, settings.metrics]
    own = [source_digest(metric) for metric in settings.metrics]
    key = f"{data.key}/real/{short_hash(json.dumps([asked, own]))}.json"
    features = (
        f"{data.key}/real/{short_hash(json.dumps(judge))}.safetensors" if settings.metrics else None
    )
    kept = _kept(store, key, data)
    if kept is None or (features and not store.exists(features)):
        task = _measure.options(num_cpus=cpus, num_gpus=int(gpu))
        trained = classifier and classifier[0]
        ray.get(task.remote(store, data, settings, trained, cpus, gpu, key, features))
        kept = RealScore.model_validate_json(store.get(key))
    return kept, features


def _check_enough(data: DataSet, settings: ScoreSettings) -> None:
    """Raise UserError where the real images are too few for the score, or for a metric of it.

    Known once they are counted; the runs would learn it hours later, each for itself.
    """
    said = f"data.{data.name}: its images, {data.images} in all, are too few for"
    if data.images < 2 * settings.splits:  # as for `count`: the score of one image is always 1
        raise UserError(
            f"{said} score.splits, which is {settings.splits}: a split takes 2 or more; lower it, "
            "or add images"
        )
    for metric in settings.metrics:
        if metric in METRICS and data.images < (fewest := METRICS[metric].fewest_real):
            raise UserError(
                f"{said} the metric {metric}: it takes {fewest} or more; leave it out of "
                "score.metrics, or add images"
            )


def _kept(store: Store, key: str, data: DataSet) -> RealScore | None:
    """What was measured before; None of what is not there, damaged, or another measurement."""
    try:
        kept = RealScore.model_validate_json(store.get(key))
    except (FileNotFoundError, ValidationError):
        return None
    told = (kept.name, kept.digest, kept.asked)
    return kept if told == (data.name, data.digest, Path(key).stem) else None


def _judge(settings: ScoreSettings, classifier: tuple[str, str] | None) -> object:
    """What tells the classifier from others: a digest, or when its file was last changed."""
    if classifier:
        return classifier[1]
    path = Path(settings.weights).expanduser() if settings.weights else None
    return [path.stat().st_size, path.stat().st_mtime_ns] if path and path.is_file() else None


@ray.remote
def _measure(
    store: Store,
    data: DataSet,
    settings: ScoreSettings,
    trained: str | None,
    threads: int,
    gpu: bool,
    key: str,
    features_key: str | None,
) -> None:
    """Classify the real images; all of them where metrics need features that are not there."""
    torch.set_num_threads(threads)
    device = machine.device(gpu)
    classifier = load_classifier(settings, device, store.local(trained) if trained else None)
    pack = ImagePack.open(store.local(f"{data.key}/pack"))
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
        asked=Path(key).stem,
        protocol=score.protocol,
        images=min(len(logits), settings.count),
        score=found.score,
        score_std=found.score_std,
        metrics=found.metrics,
        metrics_images=score.halves(len(features)) if found.metrics else None,
    )
    store.put(key, record.to_json())
