"""Measure trained generators again: with fresh noise, many images, and qualities that people see.

A run's final score is the best of many noisy evaluations, which is a selection bias. Here the
generator of the peak and that of the last evaluation are scored with noise that neither training
nor the choice of the peak ever saw. Needs no Ray.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featgan.digests import sha256_of_file, short_hash
from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.gans.classes import draw
from featgan.gans.generator_file import load_generator
from featgan.images.decode import resized
from featgan.images.pack import ImagePack
from featgan.sample import GENERATOR, LAST_GENERATOR, generate
from featgan.scores import feature_file, image_quality
from featgan.scores.classifiers import Classifier
from featgan.scores.inception_score import inception_score
from featgan.scores.metrics.registry import measure
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Generate, Score, classify, drawn, load_classifier
from featgan.scores.settings import METRICS, ScoreSettings
from featgan.seeds import stream
from featgan.user_code import source_digest
from featgan.weights import weights_file
from harness.records.data_set import check, held_out, open_pack, read_data_set
from harness.records.run_record import RunRecord
from harness.records.sweep_records import CountStatistics, RealRecord, Rescored
from harness.records.sweep_results import SweepResults, cell_name
from harness.storage.store import Store

QUALITY_IMAGES = 256
TRAINING_IMAGES = 5_000
"""Largest number of training images that are searched for copies."""
FEATURE_IMAGES = {"cpu": 96, "cuda": 1024}
"""VGG16 takes seconds for a dozen images on a CPU."""


def rescore(folder: Path, count: int | None = None, **how: Any) -> None:
    """Measure the runs of a sweep's folder in this process, as `Rescoring` does with `how`.

    With its `further` metrics, runs whose generator is gone are named, and the others measured.
    Raises UserError where images, generators or weights are missing or damaged, `count` is too
    small for a run's score, or a run has a user-defined network that is not in `networks`.
    """
    results, home = SweepResults(folder), folder.resolve()
    store, device = Store(str(home.parent)), "cuda" if torch.cuda.is_available() else "cpu"
    rescoring = Rescoring(store, home.name, device, count=count, **how)
    missing = rescoring.missing(results)
    for run in [*missing] if rescoring.further else []:
        needs = [GENERATOR] if run.run in results.rescored else [GENERATOR, LAST_GENERATOR]
        if not all(store.exists(rescoring.file(run, name)) for name in needs):
            print(f"{cell_name(run.cell)}: not measured, as its generator is gone", flush=True)
            missing.remove(run)
    try:
        for key in sorted({run.data_key for run in missing}):
            check(store, read_data_set(store, key))
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: missing; measuring needs the folder `features/` next to the sweep's"
        ) from None
    for number, run in enumerate(missing, 1):
        of = results.held_out(run), results.real_of(run), results.rescored.get(run.run)
        score = rescoring.measure(run, *of)
        print(f"{number} of {len(missing)}: {cell_name(run.cell)}: {score:.3f}", flush=True)


@dataclass(frozen=True)
class Rescoring:
    """Measures finished runs, and writes `rescored.json` into the folder of each."""

    store: Store
    sweep: str
    device: str
    networks: Collection[str] = ()
    """User-defined networks that may be imported."""
    count: int | None = None
    """Number of images of a run; None: five evaluations' worth, and 50,000 or more on a GPU."""
    further: ScoreSettings | None = None
    """Further metrics to measure, and the features for them."""

    @cached_property
    def _request(self) -> str:
        """Hash of the further metrics, of the bytes of weights and code, and of the count."""
        asked = self.further or ScoreSettings()
        files = [weights_file(path, "", "--features-weights")[1] for path in asked.files]
        code = [source_digest(metric) for metric in asked.metrics]
        return short_hash(asked.model_dump(exclude={"features_weights"}), files, code, self.count)

    def file(self, run: RunRecord, name: str) -> str:
        """Return the store key of a file of a run."""
        return f"{self.sweep}/runs/{run.run}/{name}"

    def _is_measured(self, record: Rescored) -> bool:
        """Return whether a record has all that is asked for; with `further`, these metrics."""
        if self.further:
            return self._request in record.further
        return bool(record.fresh_scores) if self.count is None else record.images == self.count

    def missing(self, results: SweepResults) -> list[RunRecord]:
        """Return the finished runs that are still to be measured."""
        measured = {name for name, of in results.rescored.items() if self._is_measured(of)}
        runs = (run for run in results.runs if run.run not in measured)
        return [run for run in runs if run.status == "finished"]

    def measure(
        self, run: RunRecord, share: float, real: RealRecord | None, before: Rescored | None
    ) -> float:
        """Measure the generators of a run: of its peak, also in the way of `real`, and of its end.

        Returns the score of the first. The record keeps further metrics that it had `before`;
        where `further` ones are asked for, they are added to it, and all else stays. `share` of
        the data set is held out.
        """
        settings = ScoreSettings.model_validate(run.settings["score"])
        count, splits = self.count or settings.fresh_count(self.device == "cuda"), settings.splits
        if count < 2 * splits:
            raise UserError(
                f"--count {count}: too few for {run.run}: each of its score's {splits} "
                f"splits takes 2 images or more; give at least {2 * splits}"
            )
        of_peak = self._images(run, GENERATOR, run.generator_sha256, count)
        further, record = dict(before.further) if before else {}, before
        # cuDNN's defaults, but without TF32, as training in fp32
        with torch.backends.cudnn.flags(True, allow_tf32=False):
            if self.further:
                asked = self.further.model_dump(include={"metrics", "features", "features_weights"})
                of_run = settings.model_copy(update=asked)
                further[self._request] = self._further(of_run, run, share, of_peak, count)
            if not (record and self.further):
                record = self._rescore(settings, run, share, real, of_peak, count)
        record = record.model_copy(update={"further": further})
        self.store.put(self.file(run, "rescored.json"), record.to_json())
        return record.score

    def _rescore(
        self,
        own: ScoreSettings,
        run: RunRecord,
        share: float,
        real: RealRecord | None,
        of_peak: Generate,
        count: int,
    ) -> Rescored:
        """Return all but further metrics; `own` are the run's settings."""
        classifier, splits = self._classifier(own, run), own.splits
        settings = own.model_copy(update={"metrics": []})
        of_end = self._images(run, LAST_GENERATOR, run.last_generator_sha256, count)
        features, logits = classify(classifier, of_peak, count, settings.batch_size)
        _, last_logits = classify(classifier, of_end, count, settings.batch_size)
        images = of_peak(0, QUALITY_IMAGES).numpy()
        score, score_std = inception_score(logits, splits)
        same_protocol = Score(classifier, settings).protocol
        score_as_real, metrics_as_real = None, dict[str, float]()
        if real and real.protocol == same_protocol:
            enough = real.images >= 2 * splits
            as_real = _scores(logits, real.images, splits) if enough else []
            score_as_real = float(np.mean(as_real)) if as_real else None
            metrics_as_real = self._metrics_as_real(run, real, classifier, features)
        network = FeatureSettings.model_validate(run.settings["features"])
        training = training_images(self.store.root, run.data_key, share)
        return Rescored(
            generator_sha256=run.generator_sha256 or "",
            images=count,
            protocol=Score(classifier, settings.model_copy(update={"count": count})).protocol,
            score=score,
            score_std=score_std,
            same_protocol=same_protocol,
            fresh_scores=_scores(logits, settings.count, splits),
            last_fresh_scores=_scores(last_logits, settings.count, splits),
            score_as_real=score_as_real,
            metrics_as_real=metrics_as_real,
            qualities=image_quality.measure(images, training),
            feature_counts=CountStatistics.of(count_features(network, images, self.device)),
            device=self.device,
        )

    def _further(
        self, settings: ScoreSettings, run: RunRecord, share: float, of_peak: Generate, count: int
    ) -> dict[str, float]:
        """Return the metrics of `settings` of a generator's images, by number and protocol.

        Where a share of the images is held out, also of those, and of as many generated images.
        """
        classifier = self._classifier(settings, run)
        training = _real_features(self.store.root, run.data_key, share, classifier)
        features, _ = classify(classifier, of_peak, count, settings.batch_size)
        held_out, numbers = training.held_out[:count], dict[str, float]()
        same = [("", features[: len(held_out)]), (" of held-out images", held_out)]
        parts = [("", features), *(same if share else [])]
        for metric, (of, images) in product(settings.metrics, parts):
            alone = {"metrics": [metric], "count": len(images)}  # its column does not name others
            score = Score(classifier, settings.model_copy(update=alone), training)
            for name, value in score.metrics_of(images, training).items():
                numbers[f"{name}{of}: {score.metrics_protocol}"] = value
        return numbers

    def _classifier(self, settings: ScoreSettings, run: RunRecord) -> Classifier:
        where = self.store.root, self.sweep, self.device
        return _classifier(*where, settings.model_dump_json(), run.score_protocol)

    def _metrics_as_real(
        self, run: RunRecord, real: RealRecord, classifier: Classifier, features: torch.Tensor
    ) -> dict[str, float]:
        """Return metrics of as many images, and against the same others, as those of `real`."""
        key, (part, count) = real.features_key, real.metrics_images or (0, 0)
        if not key or not 0 < part <= len(features) or not self.store.exists(key):
            return {}
        of_real = feature_file.read(str(self.store.local(key)), classifier).features
        others, found = FeatureStatistics(of_real[-count:]), dict[str, float]()
        for metric in run.settings["score"]["metrics"]:
            if metric in METRICS:  # a file does not decide which code is imported
                found |= measure(metric, others, features[:part])
        return found

    def _images(self, run: RunRecord, name: str, digest: str | None, count: int) -> Generate:
        """Return a generator of a run, as a function; UserError if it is missing or another one.

        Its noise is from a stream that neither training nor evaluations use.
        """
        key = self.file(run, name)
        if not self.store.exists(key) or sha256_of_file(path := self.store.local(key)) != digest:
            raise UserError(
                f"{self.store.join(key)}: missing, or not the generator with which the run ended; "
                "remove the run's folder, and the sweep trains it again"
            )
        saved = load_generator(path, torch.device(self.device), self.networks)
        random, size = stream(run.cell["seed"], "rescore"), max(count, QUALITY_IMAGES)
        noise = draw(saved.gan.latent, saved.classes, size, random)
        return drawn(partial(generate, saved), noise)


def _scores(logits: torch.Tensor, images: int, splits: int) -> list[float]:
    """Return the score of each disjoint set of so many images."""
    sets = (part for part in logits.split(images) if len(part) == images)
    return [inception_score(part, splits)[0] for part in sets]


@lru_cache(1)
def training_images(root: str, data_key: str, share: float = 0.0) -> np.ndarray:
    """Return a sample of a data set's images: uint8 [n, 3, S, S], in random order.

    `share` of the data set is held out, and not among them.
    """
    pack, rows, held = _in_order(root, data_key, share)
    return pack.rows(rows[held:][:TRAINING_IMAGES])


@lru_cache(1)
def _real_features(root: str, key: str, share: float, classifier: Classifier) -> FeatureStatistics:
    """Return the features of a data set's images, of which a share is held out and kept apart."""
    pack, rows, held = _in_order(root, key, share)
    features, _ = classify(classifier, drawn(pack.rows, rows), len(rows), 50)
    return FeatureStatistics(features, held)


def _in_order(root: str, data_key: str, share: float) -> tuple[ImagePack, np.ndarray, int]:
    """Return a data set's pack, its rows in random order, held-out ones first, and their number."""
    data = read_data_set(Store(root), data_key).model_copy(update={"held_out": share})
    held, rows = held_out(Store(root), data), np.random.default_rng(0).permutation(data.images)
    rows = rows[np.argsort(~held[rows], kind="stable")]
    return open_pack(Store(root), data_key), rows, int(held.sum())


@lru_cache(2)
def _classifier(root: str, sweep: str, device: str, settings: str, protocol: str) -> Classifier:
    """Return the classifier of a score protocol; find a trained one by its name in it."""
    chosen, store = ScoreSettings.model_validate_json(settings), Store(root)
    if chosen.classifier != "trained":
        return load_classifier(chosen, torch.device(device))
    for key in store.list(f"{sweep}/classifier"):
        classifier = load_classifier(chosen, torch.device(device), store.local(key))
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
