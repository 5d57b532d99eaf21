"""Measure trained generators again: with fresh noise, many images, and qualities that people see.

A run's final score is the best of many noisy evaluations, which is a selection bias. Here the
generator of every finished run is scored with noise that its training never saw. Needs no Ray.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from featgan.digests import sha256_of_file
from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.gans.generator_file import load_generator
from featgan.gans.registry import to_uint8
from featgan.images.decode import resized
from featgan.sample import GENERATOR, generate
from featgan.scores import image_quality
from featgan.scores.classifiers import Classifier
from featgan.scores.inception_score import inception_score
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import ScoreSettings
from featgan.seeds import stream
from harness.records.data_set import check, open_pack, read_data_set
from harness.records.run_record import RunRecord
from harness.records.sweep_records import CountStatistics, Rescored
from harness.records.sweep_results import SweepResults, cell_name
from harness.storage.store import Store

GPU_COUNT = 50_000
QUALITY_IMAGES = 256
TRAINING_IMAGES = 5_000
"""Largest number of training images that are searched for copies."""
FEATURE_IMAGES = {"cpu": 96, "cuda": 1024}
"""VGG16 takes seconds for a dozen images on a CPU."""


def rescore(folder: Path, count: int | None = None, networks: Collection[str] = ()) -> None:
    """Write `rescored.json` for every finished run of a sweep's folder.

    `count` is the number of images of a run: by default 50,000 on a GPU; on a CPU ten times as
    many as in an evaluation with the small classifier, and as many with a large one. What has
    been measured is not measured again. `networks` are the user-defined networks that may be
    imported. Raises UserError where images, generators or weights are missing or damaged, `count`
    is too small for a run's score, or a run has a user-defined network that is not in `networks`.
    """
    results, home = SweepResults.read(folder), folder.resolve()
    store, device = Store(str(home.parent)), "cuda" if torch.cuda.is_available() else "cpu"
    rescoring = Rescoring(store, home.name, device, count, networks)
    missing = rescoring.missing(results)
    for key in sorted({run.data_key for run in missing}):
        try:
            check(store, read_data_set(store, key))
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename}: no such file; measuring needs the folder `features/` next to "
                "the sweep's"
            ) from None
    for number, run in enumerate(missing, 1):
        score = rescoring.measure(run)
        print(f"{number} of {len(missing)}: {cell_name(run.cell)}: {score:.3f}", flush=True)


@dataclass(frozen=True)
class Rescoring:
    """Where the generators of a sweep are, and how they are measured."""

    store: Store
    sweep: str
    device: str
    count: int | None
    networks: Collection[str]

    def missing(self, results: SweepResults) -> list[RunRecord]:
        """Return the finished runs that are still to be measured."""
        measured = {
            name for name, record in results.rescored.items() if self.count in (None, record.images)
        }
        runs = (run for run in results.runs if run.run not in measured)
        return [run for run in runs if run.status == "finished"]

    def measure(self, run: RunRecord) -> float:
        """Measure the generator of a run; return its score."""
        started, seed, device = time.perf_counter(), run.cell["seed"], torch.device(self.device)
        settings = ScoreSettings.model_validate({**run.settings["score"], "metrics": []})
        chosen = self.store.root, self.sweep, settings.model_dump_json(), run.score_protocol, device
        classifier = _classifier(*chosen)
        count = self.count
        if count is None and self.device == "cuda":
            count = max(GPU_COUNT, settings.count)
        elif count is None:
            count = settings.count * (10 if settings.classifier == "trained" else 1)
        if count < 2 * settings.splits:
            raise UserError(
                f"--count {count}: too few for {run.run}: each of its score's {settings.splits} "
                f"splits takes 2 images or more; give at least {2 * settings.splits}"
            )
        key = f"{self.sweep}/runs/{run.run}/{GENERATOR}"
        if not self.store.exists(key):
            raise UserError(
                f"{self.store.join(key)}: missing, though the run is finished; train it again"
            )
        path = self.store.local(key)
        generator = load_generator(path, device, self.networks)

        def noise(count: int, use: str) -> torch.Tensor:
            """Return noise [count, latent] of a stream that training does not use."""
            return torch.randn(count, generator.gan.latent, generator=stream(seed, "rescore", use))

        # cuDNN's defaults, but without TF32, as training in fp32
        with torch.inference_mode(), torch.backends.cudnn.flags(True, allow_tf32=False):
            batches = [
                classifier(to_uint8(generator.network(rows.to(device))))
                for rows in noise(count, "score").split(settings.batch_size)
            ]
            images = generate(generator, noise(QUALITY_IMAGES, "qualities"))
        logits = torch.cat(batches)
        score, score_std = inception_score(logits, settings.splits)
        fresh = [part for part in logits.split(settings.count) if len(part) == settings.count]
        features = FeatureSettings.model_validate(run.settings["features"])
        many = settings.model_copy(update={"count": count})
        record = Rescored(
            generator_sha256=sha256_of_file(path),
            images=count,
            protocol=Score(classifier, many).protocol,
            score=score,
            score_std=score_std,
            same_protocol=Score(classifier, settings).protocol,
            fresh_scores=[inception_score(part, settings.splits)[0] for part in fresh],
            qualities=image_quality.measure(images, training_images(self.store.root, run.data_key)),
            feature_counts=CountStatistics.of(count_features(features, images, self.device)),
            device=self.device,
            seconds=time.perf_counter() - started,
        )
        self.store.put(f"{self.sweep}/runs/{run.run}/rescored.json", record.to_json())
        return score


@lru_cache(1)
def training_images(root: str, data_key: str) -> np.ndarray:
    """Return a sample of a data set's images: uint8 [n, 3, S, S], in random order."""
    pack = open_pack(Store(root), data_key)
    return pack.rows(np.random.default_rng(0).permutation(len(pack))[:TRAINING_IMAGES])


@lru_cache(1)
def _classifier(
    root: str, sweep: str, settings: str, protocol: str, device: torch.device
) -> Classifier:
    """Return the classifier of a score protocol; find a trained one by its name in it."""
    chosen, store = ScoreSettings.model_validate_json(settings), Store(root)
    if chosen.classifier != "trained":
        return load_classifier(chosen, device)
    for key in store.list(f"{sweep}/classifier"):
        classifier = load_classifier(chosen, device, store.local(key))
        if f" {classifier.name} " in protocol:
            return classifier
    folder = store.join(f"{sweep}/classifier")
    raise UserError(f"{folder}: no classifier of the protocol {protocol}; run the sweep again")


def count_features(features: FeatureSettings, images: np.ndarray, device: str) -> np.ndarray:
    """Return the feature counts [n] of the first images."""
    some = images[: FEATURE_IMAGES[device]]
    return _counter(features, device).count(resized(some, features.input_size))


@lru_cache(1)
def _counter(settings: FeatureSettings, device: str) -> FeatureCounter:
    return FeatureCounter(settings, torch.device(device))
