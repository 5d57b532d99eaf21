"""Measuring what was trained once more: fresh noise, many images, and what people see in them.

A run's final score is the best of many noisy evaluations, so it flatters. Here every finished
run's generator is scored with noise its training never saw. Needs no Ray.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.gans.generator_file import SavedGenerator, load_generator
from featgan.gans.registry import to_uint8
from featgan.images.decode import resized
from featgan.images.pack import ImagePack
from featgan.sample import GENERATOR, generate
from featgan.scores import image_quality
from featgan.scores.inception_score import Classifier, Score, inception_score, load_classifier
from featgan.scores.settings import ScoreSettings
from featgan.seeds import stream
from harness.records.data_set import check, load_table, read_data_set
from harness.records.run_record import RunRecord
from harness.records.sweep_records import (
    CountStatistics,
    DataRecord,
    RealRecord,
    Rescored,
)
from harness.records.sweep_results import SweepResults, cell_name
from harness.storage.store import Store

GPU_COUNT = 50_000
QUALITY_IMAGES = 256
TRAINING_IMAGES = 5_000
"""At most so many training images are searched for copies."""
FEATURE_IMAGES = {"cpu": 96, "cuda": 1024}
"""VGG16 takes seconds for a dozen images on a CPU."""

Say = Callable[[str], None]


def rescore(
    results: Path,
    count: int | None = None,
    say: Say = partial(print, flush=True),  # noqa: B008
    networks: Collection[str] = (),
) -> None:
    """Write `rescored.json` for every finished run, and `real/<data set>.json` beside the runs.

    `count` images a run; by default 50,000 on a GPU, on a CPU ten evaluations' worth with the
    small classifier and one with a large. What is there already is not measured again.
    `networks` are the user's own `module:function`s that may be imported. Raises UserError where
    images, generators or weights are missing or damaged, `count` is too small for a run's score,
    or a run has own networks that are not among them.
    """
    outcome = SweepResults.read(results)
    measuring = _Measuring(results, outcome, say, networks)
    finished = [run for run in outcome.runs if run.status == "finished"]
    for number, run in enumerate(finished, 1):
        done = f"{number} of {len(finished)}: {cell_name(run.cell)}"
        with _exact_fp32():
            record = measuring.run(run, count)
        say(f"{done}: {record.score:.3f}" if record else f"{done}: there already")


class _Measuring:
    """What runs share: device, classifiers, counters, real images; loaded when first needed."""

    def __init__(
        self, results: Path, outcome: SweepResults, say: Say, networks: Collection[str]
    ) -> None:
        self.results, self.outcome, self.say, self.networks = results, outcome, say, networks
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classifier = cache(self._classifier)
        self.counter = cache(self._counter)
        self.training = cache(self._training)
        self.features = cache(self._features)

    def run(self, run: RunRecord, count: int | None) -> Rescored | None:
        """Measure one run; None where that has been done."""
        home = self.outcome.run_folder(run)
        digest = hashlib.sha256(_bytes(home / GENERATOR)).hexdigest()
        if run.generator_sha256 not in (None, digest):
            raise UserError(
                f"{home / GENERATOR}: not the generator that this run ended with; remove the "
                "run's folder, and the sweep trains it again"
            )
        settings = ScoreSettings.model_validate({**run.settings["score"], "metrics": []})
        classifier = self.classifier(settings.model_dump_json(), run.score_protocol)
        many = self._count(settings) if count is None else count
        if many < 2 * settings.splits:
            raise UserError(
                f"--count {many}: too few for {run.run}: each of its score's {settings.splits} "
                f"splits takes 2 images or more; give at least {2 * settings.splits}"
            )
        large = settings.model_copy(update={"count": many})
        protocol = Score(classifier, large).protocol
        before = self.outcome.rescored.get(run.run)
        if before and (before.generator_sha256, before.protocol) == (digest, protocol):
            return None
        started = time.perf_counter()
        generator = load_generator(home / GENERATOR, self.device, self.networks)
        features = FeatureSettings.model_validate(run.settings["features"])
        data = self.outcome.variant(run)
        self.real(data, features)
        logits = self._logits(generator, classifier, large, run.cell["seed"])
        score, score_std = inception_score(logits, settings.splits)
        fresh = [part for part in logits.split(settings.count) if len(part) == settings.count]
        noise = _noise(generator, QUALITY_IMAGES, run.cell["seed"], "qualities")
        images = generate(generator, noise)
        _, training = self.training(data)
        if training.shape[1:] != images.shape[1:]:
            raise UserError(f"{run.run}: its images are not of the size of {data}'s")
        found = image_quality.measure(images, training)
        record = Rescored(
            generator_sha256=digest,
            protocol=protocol,
            score=score,
            score_std=score_std,
            same_protocol=Score(classifier, settings).protocol,
            fresh_scores=[inception_score(part, settings.splits)[0] for part in fresh],
            qualities=found,
            feature_counts=_statistics(self._counts(features, images)),
            device=self.device.type,
            seconds=time.perf_counter() - started,
        )
        _write(home / "rescored.json", record.to_json())
        return record

    def real(self, data: str, features: FeatureSettings) -> None:
        """Measure a sample of a data set's real images, unless that has been done."""
        record = self._record(data)
        path = self.results / "real" / f"{data}.json"
        with suppress(OSError, ValidationError):  # a damaged one is made again
            if RealRecord.model_validate_json(path.read_bytes()).digest == record.digest:
                return
        order, training = self.training(data)
        images = training[:QUALITY_IMAGES]
        counts = self._counts(features, images)
        found = image_quality.measure(images, training, same=True)
        real = RealRecord(
            name=data,
            digest=record.digest,
            qualities=found,
            feature_counts=_statistics(counts),
            group_counts={} if counts is None else self._by_group(data, order, counts),
        )
        path.parent.mkdir(exist_ok=True)
        _write(path, real.to_json())

    def _by_group(
        self, data: str, rows: np.ndarray, counts: np.ndarray
    ) -> dict[int, CountStatistics]:
        """`counts` of the pack's first `rows` by the group each image was put into."""
        store, key = self.features(data)
        table = load_table(store, key)
        original = table["feature_count"].to_numpy()[rows[: len(counts)]]
        records = [record for record in self.outcome.count_groups if record.data == data][:1]
        split = {
            group.number: counts[(original >= group.lowest) & (original <= group.highest)]
            for record in records
            for group in record.groups
        }
        return {number: found for number, part in split.items() if (found := _statistics(part))}

    def _count(self, settings: ScoreSettings) -> int:
        if self.device.type == "cuda":
            return max(GPU_COUNT, settings.count)
        return settings.count * (10 if settings.classifier == "trained" else 1)

    def _classifier(self, settings: str, protocol: str) -> Classifier:
        """The classifier of a score protocol; a trained one is found by its name in it."""
        chosen = ScoreSettings.model_validate_json(settings)
        if chosen.classifier != "trained":
            return load_classifier(chosen, self.device)
        for path in sorted((self.results / "classifier").glob("*.safetensors")):
            classifier = load_classifier(chosen, self.device, path)
            if f" {classifier.name} " in protocol:
                return classifier
        raise UserError(f"{self.results / 'classifier'}: no classifier of the protocol {protocol}")

    def _counter(self, settings: FeatureSettings) -> FeatureCounter | None:
        try:
            return FeatureCounter(settings, self.device)
        except UserError as error:
            self.say(f"feature counts are left out: {error}")
            return None

    def _counts(self, settings: FeatureSettings, images: np.ndarray) -> np.ndarray | None:
        """Feature counts of the first images, resized to VGG16's input; None without weights."""
        counter = self.counter(settings)
        if counter is None:
            return None
        some = images[: FEATURE_IMAGES[self.device.type]]
        return counter.count(resized(some, settings.input_size))

    def _record(self, data: str) -> DataRecord:
        if data not in self.outcome.data:
            raise UserError(
                f"{self.results / 'data' / data}.json: missing, or another's; run the sweep again"
            )
        return self.outcome.data[data]

    def _features(self, data: str) -> tuple[Store, str]:
        """Store and key of a data set's features and images, beside the sweep's folder; checked."""
        store, key = Store(str(self.results.resolve().parent)), self._record(data).key
        if not key.startswith("features/"):
            path = self.results / "data" / f"{data}.json"
            raise UserError(f"{path}: tells no folder below `features/`; the sweep writes it anew")
        try:
            check(store, read_data_set(store, key))
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename}: no such file, of the images of {data}; measuring needs "
                "`features/` beside the sweep, as it was counted"
            ) from None
        return store, key

    def _training(self, data: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n] and images [n, 3, S, S] of a sample of the real images, in random order."""
        store, key = self.features(data)
        pack = ImagePack.open(store.local(f"{key}/pack"))
        order = np.random.default_rng(0).permutation(len(pack))[:TRAINING_IMAGES]
        return order, pack.rows(order)

    def _logits(
        self, generator: SavedGenerator, classifier: Classifier, settings: ScoreSettings, seed: int
    ) -> torch.Tensor:
        """Logits [count, classes] of images from noise of a stream of its own."""
        noise = _noise(generator, settings.count, seed, "score")
        with torch.inference_mode():
            batches = noise.split(settings.batch_size)
            return torch.cat(
                [classifier(to_uint8(generator.network(rows.to(self.device)))) for rows in batches]
            )


@contextmanager
def _exact_fp32() -> Iterator[None]:
    """Keep cuDNN's TF32, its default, out of generators, as training in fp32 does."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _noise(generator: SavedGenerator, count: int, seed: int, use: str) -> torch.Tensor:
    return torch.randn(count, generator.gan.latent, generator=stream(seed, "rescore", use))


def _statistics(counts: np.ndarray | None) -> CountStatistics | None:
    """Number, mean and deviation of counts; None of none."""
    if counts is None or not len(counts):
        return None
    return CountStatistics(images=len(counts), mean=float(counts.mean()), sd=float(counts.std()))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: missing, though the run is finished; train it again") from None


def _write(path: Path, data: bytes) -> None:
    """Write and rename, so that no half-written measurement is ever read."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
