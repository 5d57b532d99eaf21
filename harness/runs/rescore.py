"""Measure trained generators again: with fresh noise, many images, and qualities that people see.

A run's final score is the best of many noisy evaluations, which is a selection bias. Here the
generator of every finished run is scored with noise that its training never saw. Needs no Ray.
"""

import time
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from featgan.digests import sha256_of_file
from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.gans.generator_file import SavedGenerator, load_generator
from featgan.gans.registry import to_uint8
from featgan.images.decode import resized
from featgan.sample import GENERATOR, generate
from featgan.scores import image_quality
from featgan.scores.classifiers import Classifier
from featgan.scores.inception_score import inception_score
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import ScoreSettings
from featgan.seeds import stream
from harness.records.data_set import check, load_table, open_pack, read_data_set
from harness.records.run_record import RunRecord
from harness.records.sweep_records import CountStatistics, RealRecord, Rescored
from harness.records.sweep_results import SweepResults, cell_name
from harness.storage.store import Store

GPU_COUNT = 50_000
QUALITY_IMAGES = 256
TRAINING_IMAGES = 5_000
"""Largest number of training images that are searched for copies."""
FEATURE_IMAGES = {"cpu": 96, "cuda": 1024}
"""VGG16 takes seconds for a dozen images on a CPU."""


def rescore(
    results: Path,
    count: int | None = None,
    say: Callable[[str], None] = partial(print, flush=True),  # noqa: B008
    networks: Collection[str] = (),
) -> None:
    """Write `rescored.json` for every finished run, and `real/<data set>.json` of the sweep.

    `count` is the number of images of a run: by default 50,000 on a GPU; on a CPU ten times as
    many as in an evaluation with the small classifier, and as many with a large one. What has
    been measured is not measured again. `networks` are the user-defined networks that may be
    imported. Raises UserError where images, generators or weights are missing or damaged, `count`
    is too small for a run's score, or a run has a user-defined network that is not in `networks`.
    """
    sweep = SweepResults.read(results)
    rescoring = _Rescoring(sweep, say, networks)
    finished = [run for run in sweep.runs if run.status == "finished"]
    for number, run in enumerate(finished, 1):
        # cuDNN's defaults, but without TF32, as training in fp32
        with torch.backends.cudnn.flags(True, allow_tf32=False):
            record = rescoring.run(run, count)
        outcome = f"{record.score:.3f}" if record else "measured already"
        say(f"{number} of {len(finished)}: {cell_name(run.cell)}: {outcome}")


class _Rescoring:
    """Measures runs; keeps what they share."""

    def __init__(
        self, sweep: SweepResults, say: Callable[[str], None], networks: Collection[str]
    ) -> None:
        self._sweep, self._say, self._networks = sweep, say, networks
        self._store = Store(str(sweep.folder))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run(self, run: RunRecord, count: int | None) -> Rescored | None:
        """Measure a run; return None if that has been done."""
        started, seed = time.perf_counter(), run.cell["seed"]
        path = self._sweep.run_folder(run) / GENERATOR
        if not path.is_file():
            raise UserError(f"{path}: missing, though the run is finished; train it again")
        digest = sha256_of_file(path)
        settings = ScoreSettings.model_validate({**run.settings["score"], "metrics": []})
        classifier = self._classifier(settings.model_dump_json(), run.score_protocol)
        count = self._default_count(settings) if count is None else count
        if count < 2 * settings.splits:
            raise UserError(
                f"--count {count}: too few for {run.run}: each of its score's {settings.splits} "
                f"splits takes 2 images or more; give at least {2 * settings.splits}"
            )
        protocol = Score(classifier, settings.model_copy(update={"count": count})).protocol
        before = self._sweep.rescored.get(run.run)
        if before and (before.generator_sha256, before.protocol) == (digest, protocol):
            return None
        generator = load_generator(path, self._device, self._networks)
        features = FeatureSettings.model_validate(run.settings["features"])
        data = self._sweep.variant(run)
        real, _ = self._real_images(data)
        self._measure_real(data, features)
        noise = _noise(generator, count, seed, "score")
        with torch.inference_mode():
            logits = torch.cat(
                [
                    classifier(to_uint8(generator.network(rows.to(self._device))))
                    for rows in noise.split(settings.batch_size)
                ]
            )
        score, score_std = inception_score(logits, settings.splits)
        fresh = [part for part in logits.split(settings.count) if len(part) == settings.count]
        images = generate(generator, _noise(generator, QUALITY_IMAGES, seed, "qualities"))
        if real.shape[1:] != images.shape[1:]:
            raise UserError(f"{run.run}: its images are not of the size of {data}'s")
        record = Rescored(
            generator_sha256=digest,
            protocol=protocol,
            score=score,
            score_std=score_std,
            same_protocol=Score(classifier, settings).protocol,
            fresh_scores=[inception_score(part, settings.splits)[0] for part in fresh],
            qualities=image_quality.measure(images, real),
            feature_counts=_statistics(self._counts(features, images)),
            device=self._device.type,
            seconds=time.perf_counter() - started,
        )
        self._store.put(f"runs/{run.run}/rescored.json", record.to_json())
        return record

    @cache
    def _measure_real(self, data: str, features: FeatureSettings) -> None:
        """Measure a sample of a data set's real images, unless that has been done."""
        if data in self._sweep.real:
            return
        real, real_counts = self._real_images(data)
        counts = self._counts(features, real[:QUALITY_IMAGES])
        group_counts = {}
        if counts is not None:
            before = real_counts[: len(counts)]
            groups = (each.groups for each in self._sweep.count_groups if each.data == data)
            for group in next(groups, ()):
                members = counts[(before >= group.lowest) & (before <= group.highest)]
                if found := _statistics(members):
                    group_counts[group.number] = found
        record = RealRecord(
            name=data,
            digest=self._sweep.data[data].digest,
            qualities=image_quality.measure(real[:QUALITY_IMAGES], real, same=True),
            feature_counts=_statistics(counts),
            group_counts=group_counts,
        )
        self._store.put(f"real/{data}.json", record.to_json())

    @cache
    def _real_images(self, data: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a sample of a data set's images, and the counts by which they were grouped.

        The sample, uint8 [n, 3, S, S], is in random order; all images are checked.
        """
        path = self._sweep.folder / "data" / f"{data}.json"
        if data not in self._sweep.data:
            raise UserError(f"{path}: missing or damaged; run the sweep again to recreate it")
        record, store = self._sweep.data[data], Store(str(self._sweep.folder.resolve().parent))
        try:
            check(store, read_data_set(store, record.key))
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename}: no such file, of the images of {data}; measuring needs the "
                "folder `features/` next to the sweep's"
            ) from None
        pack = open_pack(store, record.key)
        order = np.random.default_rng(0).permutation(len(pack))[:TRAINING_IMAGES]
        counts = load_table(store, record.key)["feature_count"].to_numpy()[order]
        return pack.rows(order), counts

    def _default_count(self, settings: ScoreSettings) -> int:
        if self._device.type == "cuda":
            return max(GPU_COUNT, settings.count)
        return settings.count * (10 if settings.classifier == "trained" else 1)

    @cache
    def _classifier(self, settings: str, protocol: str) -> Classifier:
        """Return the classifier of a score protocol; find a trained one by its name in it."""
        chosen = ScoreSettings.model_validate_json(settings)
        if chosen.classifier != "trained":
            return load_classifier(chosen, self._device)
        folder = self._sweep.folder / "classifier"
        for path in sorted(folder.glob("*.safetensors")):
            classifier = load_classifier(chosen, self._device, path)
            if f" {classifier.name} " in protocol:
                return classifier
        raise UserError(f"{folder}: no classifier of the protocol {protocol}; run the sweep again")

    @cache
    def _counter(self, settings: FeatureSettings) -> FeatureCounter | None:
        try:
            return FeatureCounter(settings, self._device)
        except UserError as error:
            self._say(f"feature counts are left out: {error}")
            return None

    def _counts(self, settings: FeatureSettings, images: np.ndarray) -> np.ndarray | None:
        """Return feature counts [n] of the first images; None without the network's weights."""
        if (counter := self._counter(settings)) is None:
            return None
        some = images[: FEATURE_IMAGES[self._device.type]]
        return counter.count(resized(some, settings.input_size))


def _noise(generator: SavedGenerator, count: int, seed: int, use: str) -> torch.Tensor:
    """Return noise [count, latent] of a stream that training does not use."""
    return torch.randn(count, generator.gan.latent, generator=stream(seed, "rescore", use))


def _statistics(counts: np.ndarray | None) -> CountStatistics | None:
    """Return number, mean and deviation of counts; None if there are none."""
    if counts is None or not len(counts):
        return None
    return CountStatistics(images=len(counts), mean=float(counts.mean()), sd=float(counts.std()))
