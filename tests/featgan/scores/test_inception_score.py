import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch_fidelity import metric_isc

from featgan.scores.classifiers import Classifier
from featgan.scores.inception_score import Diverged, Score, inception_score, real_statistics
from featgan.scores.metrics import frechet_distance
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
        description="linear",
        prepare=lambda images: images.float() / 255,
        body=nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        head=head,
        device=CPU,
        dtype=torch.float32,
    )


def noise_images(n: int, size: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    level = torch.randint(0, 256, (n, 3, 1, 1), generator=random)
    detail = torch.randint(-40, 41, (n, 3, size, size), generator=random)
    return (level + detail).clamp(0, 255).to(torch.uint8)


def test_one_hot_logits_score_the_number_of_classes() -> None:
    logits = torch.eye(4).repeat(25, 1) * 1e4
    mean, deviation = inception_score(logits, splits=1)
    assert mean == pytest.approx(4.0, rel=1e-12)
    assert deviation == 0.0


def test_equal_logits_score_one() -> None:
    assert inception_score(torch.full((20, 5), 3.0), splits=2) == pytest.approx((1.0, 0.0))


def test_a_score_computed_by_hand() -> None:
    # Two images, p = (3/4, 1/4) and (1/4, 3/4); the mean is (1/2, 1/2).
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(logits, splits=1)[0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (103, 10), (50, 1), (64, 7)])
def test_equals_torch_fidelity_on_the_same_logits(n: int, splits: int) -> None:
    logits = torch.randn(n, 13, generator=torch.Generator().manual_seed(n)) * 4
    theirs = metric_isc.isc_features_to_metric(logits, splits)
    assert inception_score(logits, splits) == pytest.approx(tuple(theirs.values()), rel=1e-9)


def test_images_sorted_by_class_score_as_if_shuffled() -> None:
    labels = torch.arange(1000) // 100
    logits = 50.0 * torch.nn.functional.one_hot(labels, 10)
    assert inception_score(logits, splits=10)[0] > 9


def test_a_class_no_image_can_be_leaves_the_score_finite() -> None:
    logits = torch.tensor([[0.0, 1.0, -2000.0], [1.0, 0.0, -2000.0]])
    without = inception_score(logits[:, :2], splits=1)
    assert inception_score(logits, splits=1) == pytest.approx(without, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_divergence(bad: float) -> None:
    logits = torch.zeros(40, 3)
    logits[17, 1] = bad
    with pytest.raises(Diverged, match="not finite"):
        inception_score(logits, splits=4)


def test_the_score_does_not_depend_on_the_batch_size() -> None:
    images, classifier = noise_images(230), small_classifier()
    scores = [
        Score(classifier, ScoreSettings(count=230, splits=5, batch_size=size)).measure(
            lambda start, stop: images[start:stop]
        )
        for size in (1, 50, 64, 230, 1000)
    ]
    assert scores[0][0] > 1.1
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-6)


def test_generate_is_asked_for_each_image_once_in_order() -> None:
    asked = []

    def generate(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return noise_images(stop - start, seed=start)

    Score(small_classifier(), ScoreSettings(count=25, splits=2, batch_size=10)).measure(generate)
    assert asked == [(0, 10), (10, 20), (20, 25)]


def test_real_images_score_about_as_the_same_images_generated() -> None:
    images = noise_images(400)
    score = Score(small_classifier(), ScoreSettings(count=400, splits=2))
    real = score.measure_images(images.numpy())
    assert real.score == pytest.approx(score.measure(lambda a, b: images[a:b])[0], rel=0.05)
    assert real.metrics == {}


def test_no_more_real_images_are_scored_than_generated_ones() -> None:
    images = noise_images(300)
    few = Score(small_classifier(), ScoreSettings(count=40, splits=1))
    asked = torch.from_numpy(np.random.RandomState(2020).permutation(300)[:40])
    expected = few.measure(lambda a, b: images[asked][a:b])
    assert few.measure_images(images.numpy()).score == pytest.approx(expected[0], rel=1e-12)


ALL = ["fid", "kid", "precision_recall", "density_coverage"]


def test_metrics_come_from_the_same_pass_as_the_score() -> None:
    classifier, images, real = small_classifier(), noise_images(90), noise_images(120, seed=1)
    settings = ScoreSettings(count=90, splits=3, batch_size=40, metrics=ALL)
    statistics = real_statistics(classifier, real.numpy())
    score = Score(classifier, settings, statistics)
    asked = []

    def generate(start: int, stop: int) -> Tensor:
        asked.append(start)
        return images[start:stop]

    found = score.evaluate(generate)
    assert asked == [0, 40, 80]
    assert (found.score, found.score_std) == score.measure(generate)
    assert list(found.metrics) == ["fid", "kid", "precision", "recall", "density", "coverage"]
    features = classifier.features_and_logits(images)[0]
    assert found.metrics["fid"] == pytest.approx(frechet_distance(statistics, features), rel=1e-5)
    expected = f"{' '.join(ALL).upper()} linear n=90 real=120 fp32"
    assert score.metrics_protocol == expected


def test_metrics_of_real_images_compare_one_half_with_the_other() -> None:
    images = noise_images(400).numpy()
    settings = ScoreSettings(count=1000, splits=2, metrics=ALL)
    classifier = small_classifier()
    score = Score(classifier, settings, real_statistics(classifier, images))
    found = score.measure_images(images).metrics
    assert found["fid"] < 0.05
    assert found["density"] == pytest.approx(1, abs=0.15)
    assert found["precision"] < 1  # the halves share no image


def test_real_images_that_are_too_few_for_halves_have_no_metrics() -> None:
    settings = ScoreSettings(count=100, splits=1, metrics=["fid", "kid"])
    classifier = small_classifier()
    statistics = real_statistics(classifier, noise_images(4).numpy())
    score = Score(classifier, settings, statistics)
    assert score.measure_images(noise_images(3).numpy()).metrics == {}  # 1 against 2: no spread
    found = score.measure_images(noise_images(4).numpy()).metrics
    assert len(found) == 2
    assert all(math.isfinite(value) for value in found.values())
    assert (score.halves(4), score.halves(5), score.halves(1000)) == ((2, 2), (2, 3), (100, 900))


def test_a_user_defined_metric_is_in_the_protocol_with_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_measure.py").write_text("def Nearest(real, generated):\n    return 1.0\n")
    start = hashlib.sha256((tmp_path / "own_measure.py").read_bytes()).hexdigest()[:6]
    settings = ScoreSettings(count=10, splits=1, metrics=["own_measure:Nearest", "fid"])
    classifier = small_classifier()
    score = Score(classifier, settings, real_statistics(classifier, noise_images(9).numpy()))
    assert score.metrics_protocol == f"own_measure:Nearest-{start} FID linear n=10 real=9 fp32"


def test_metrics_without_real_images_are_refused() -> None:
    with pytest.raises(ValueError, match="fid need features of real images"):
        Score(small_classifier(), ScoreSettings(metrics=["fid"]))


def test_measuring_leaves_no_trace() -> None:
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
    score.measure(generate)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == torch.get_num_threads()
    assert flags == (cudnn.benchmark, cudnn.deterministic, cudnn.enabled, cudnn.allow_tf32)
    assert generator.training
    generator(noise).sum().backward()  # what the generator made during scoring binds nothing


def test_the_protocol_says_how_the_score_is_made() -> None:
    score = Score(small_classifier(), ScoreSettings(count=1000, splits=10))
    assert score.protocol == "IS linear n=1000 splits=10 fp32"
    assert score.count == 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 19, "splits": 10}, "under 2 images each"),
        ({"classifier": "trained", "weights": "a.pth"}, "trained has its own"),
        ({"metrics": ["fid", "fid"]}, "same name: fid, fid"),
        ({"metrics": ["precision_recall"], "count": 3, "splits": 1}, "needs a count over 3, not 3"),
        ({"trained_on": ["apples"]}, "belongs to the classifier trained"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreSettings(**settings)
