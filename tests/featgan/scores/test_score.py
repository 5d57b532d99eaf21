from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featgan.scores.classifiers import Classifier
from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Measurement, Score
from featgan.scores.settings import ScoreSettings

CPU = torch.device("cpu")


def small_classifier(seed: int = 0) -> Classifier:
    """A linear layer on the mean colours of four quarters: cheap, and not constant."""
    random = torch.Generator().manual_seed(seed)
    head = nn.Linear(12, 7)
    with torch.no_grad():
        head.weight.normal_(0, 3, generator=random)
        head.bias.normal_(generator=random)
    return Classifier(
        name="linear",
        digest="0" * 64,
        prepare=lambda images: images.float() / 255,
        body=nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        head=head,
        device=CPU,
        dtype=torch.float32,
    )


def statistics_of(images: Tensor) -> FeatureStatistics:
    return FeatureStatistics(small_classifier().features_and_logits(images)[0])


def measure_real(score: Score, images: Tensor, unseen: int = 1000) -> Measurement:
    order = np.random.RandomState(2020).permutation(len(images))
    features, logits = score.classifier.features_and_logits(images[order])
    return score.measure_real(features, logits, min(unseen, len(images)))


def noise_images(n: int, size: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    level = torch.randint(0, 256, (n, 3, 1, 1), generator=random)
    detail = torch.randint(-40, 41, (n, 3, size, size), generator=random)
    return (level + detail).clamp(0, 255).to(torch.uint8)


def test_the_score_does_not_depend_on_the_batch_size() -> None:
    images, classifier = noise_images(230), small_classifier()
    scores = [
        Score(classifier, ScoreSettings(count=230, splits=5, batch_size=size))
        .evaluate(lambda start, stop: images[start:stop])
        .score
        for size in (1, 50, 64, 230, 1000)
    ]
    assert scores[0] > 1.1
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-6)


def test_each_image_is_generated_once_in_order() -> None:
    asked = []

    def generate(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return noise_images(stop - start, seed=start)

    Score(small_classifier(), ScoreSettings(count=25, splits=2, batch_size=10)).evaluate(generate)
    assert asked == [(0, 10), (10, 20), (20, 25)]


def test_real_images_score_about_as_if_generated() -> None:
    images = noise_images(400)
    score = Score(small_classifier(), ScoreSettings(count=400, splits=2))
    real = measure_real(score, images)
    assert real.score == pytest.approx(score.evaluate(lambda a, b: images[a:b]).score, rel=0.05)
    assert real.metrics == {}


def test_at_most_count_real_images_are_scored() -> None:
    images = noise_images(300)
    few = Score(small_classifier(), ScoreSettings(count=40, splits=1))
    asked = torch.from_numpy(np.random.RandomState(2020).permutation(300)[:40])
    expected = few.evaluate(lambda a, b: images[asked][a:b]).score
    assert measure_real(few, images).score == pytest.approx(expected, rel=1e-6)


ALL = ["fid", "kid", "precision_recall", "density_coverage"]


def test_metrics_come_from_the_same_pass_as_the_score() -> None:
    classifier, images, real = small_classifier(), noise_images(90), noise_images(120, seed=1)
    settings = ScoreSettings(count=90, splits=3, batch_size=40, metrics=ALL)
    statistics = statistics_of(real)
    score = Score(classifier, settings, statistics)
    asked = []

    def generate(start: int, stop: int) -> Tensor:
        asked.append(start)
        return images[start:stop]

    found = score.evaluate(generate)
    assert asked == [0, 40, 80]
    alone = Score(classifier, settings.model_copy(update={"metrics": []})).evaluate(generate)
    assert (found.score, found.score_std, {}) == (alone.score, alone.score_std, alone.metrics)
    assert list(found.metrics) == [
        *("fid", "kid", "kid_sd", "precision", "recall", "density", "coverage")
    ]
    features = classifier.features_and_logits(images)[0]
    assert found.metrics["fid"] == pytest.approx(frechet_distance(statistics, features), rel=1e-5)
    names = "FID KID-100x1000 PRECISION_RECALL-k3 DENSITY_COVERAGE-k5"
    expected = f"{names} linear n=90 real=120 width={features.shape[1]} fp32"
    assert score.metrics_protocol == expected


def test_metrics_of_real_images_compare_two_halves() -> None:
    images = noise_images(400)
    settings = ScoreSettings(count=1000, splits=2, metrics=ALL)
    found = measure_real(Score(small_classifier(), settings, statistics_of(images)), images).metrics
    assert found["fid"] < 0.05
    assert found["density"] == pytest.approx(1, abs=0.15)
    assert found["precision"] < 1  # the halves share no image


def test_only_images_that_the_classifier_was_not_fitted_to_are_scored() -> None:
    images = noise_images(300)
    score = Score(small_classifier(), ScoreSettings(count=200, splits=2))
    first = np.random.RandomState(2020).permutation(300)[:40]
    expected = Score(small_classifier(), ScoreSettings(count=40, splits=2)).evaluate(
        lambda a, b: images[first][a:b]
    )
    assert measure_real(score, images, 40).score == pytest.approx(expected.score, rel=1e-6)
    assert math.isnan(measure_real(score, images, 3).score)  # a split takes two


def test_too_few_real_images_have_no_metrics() -> None:
    settings = ScoreSettings(count=100, splits=1, metrics=["fid", "kid"])
    score = Score(small_classifier(), settings, statistics_of(noise_images(4)))
    assert measure_real(score, noise_images(3)).metrics == {}  # 1 against 2: no variance
    found = measure_real(score, noise_images(4)).metrics
    assert [*found] == ["fid", "kid", "kid_sd"]
    assert all(math.isfinite(value) for value in found.values())
    assert [score.parts(*n) for n in ((4, 4), (5, 5), (1000, 1000), (1000, 60))] == [
        *((2, 2), (2, 3), (100, 900), (60, 940))
    ]


def test_the_protocol_has_the_digest_of_a_user_defined_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_measure.py").write_text("def Nearest(real, generated):\n    return 1.0\n")
    start = hashlib.sha256((tmp_path / "own_measure.py").read_bytes()).hexdigest()[:6]
    settings = ScoreSettings(count=10, splits=1, metrics=["own_measure:Nearest", "fid"])
    score = Score(small_classifier(), settings, statistics_of(noise_images(9)))
    assert score.metrics_protocol == (
        f"own_measure:Nearest-{start} FID linear n=10 real=9 width=12 fp32"
    )


def test_metrics_without_real_images_are_refused() -> None:
    with pytest.raises(ValueError, match="fid need features of real images"):
        Score(small_classifier(), ScoreSettings(metrics=["fid"]))


def test_measuring_restores_global_state() -> None:
    generator = nn.Sequential(nn.Linear(4, 3 * 64), nn.BatchNorm1d(192), nn.Unflatten(1, (3, 8, 8)))
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))

    def generate(start: int, stop: int) -> Tensor:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        return (generator(noise[start:stop]) * 40 + 128).clamp(0, 255).to(torch.uint8)

    score = Score(small_classifier(), ScoreSettings(count=40, splits=2, batch_size=7))
    cudnn = torch.backends.cudnn
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    flags = cudnn.benchmark, cudnn.deterministic, cudnn.enabled, cudnn.allow_tf32
    score.evaluate(generate)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == torch.get_num_threads()
    assert flags == (cudnn.benchmark, cudnn.deterministic, cudnn.enabled, cudnn.allow_tf32)
    assert generator.training
    generator(noise).sum().backward()  # what the generator made during scoring binds nothing


def test_the_protocol_states_how_the_score_is_made() -> None:
    score = Score(small_classifier(), ScoreSettings(count=1000, splits=10))
    assert score.protocol == "IS linear n=1000 splits=10 fp32"
