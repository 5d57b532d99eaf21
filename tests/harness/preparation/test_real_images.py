"""Measurements and features of real images, without Ray's scheduling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from packed import put_counted

from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.scores import feature_file
from featgan.scores import score as scores
from featgan.scores.metrics.registry import measure
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import METRICS, Metric, ScoreSettings
from featgan.scores.small_cnn import train_classifier
from harness.cluster import connect
from harness.preparation import classifier, real_images
from harness.records.data_set import DataSet
from harness.storage.store import Store

DATA = DataSet(name="a", key="features/a-0", digest="0a1b", images=40)
SETTINGS = {"classifier": "trained", "trained_on": ["a"], "count": 30, "splits": 2}
CPU = torch.device("cpu")
FEATURES = FeatureSettings(weights="random", input_size=40)
GROUPS = FeatureGroups.fit(np.arange(40), GroupSettings(k=2))
CLASSIFIER = real_images.ChosenClassifier("c.safetensors", "digest")


class Here:
    """A Ray task, in this process; counts how often it was asked for."""

    def __init__(self, remote: Any) -> None:
        self._function, self.calls = remote._function, 0

    def options(self, **resources: Any) -> Here:
        assert resources == {"num_cpus": 1, "num_gpus": 0}
        return self

    def remote(self, *arguments: Any) -> bytes:
        self.calls += 1
        threads = torch.get_num_threads()
        content = self._function(*arguments)
        torch.set_num_threads(threads)
        return bytes(content)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)


@pytest.fixture
def store(tmp_path: Path, images: np.ndarray) -> Store:
    store = Store(str(tmp_path / "store"))
    put_counted(store, "features/a-0", images, range(40))
    names = ["x", "y"]
    store.put("c.safetensors", train_classifier(images, np.arange(40) % 2, names, seed=0, epochs=1))
    return store


def test_real_images_are_scored_once_as_generated_ones_are(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Here(real_images._measure)
    monkeypatch.setattr(real_images, "_measure", task)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(real_images, "count_features", lambda _, images, device: counts)
    counts = np.arange(30)

    waits = list[Any]()
    monkeypatch.setattr(connect, "await_room", lambda request, _: waits.append(request))

    def measure(**more: Any) -> tuple[Any, str | None]:
        settings = ScoreSettings.model_validate(SETTINGS | more)
        real = real_images.RealImages("a", DATA, settings, CLASSIFIER, FEATURES, GROUPS, gpu=False)
        return real.measure(store, 1, lambda *_: None), real.features_key

    record, key = measure()
    classifier = load_classifier(
        ScoreSettings.model_validate(SETTINGS), CPU, store.local("c.safetensors")
    )
    score = Score(classifier, ScoreSettings.model_validate(SETTINGS))
    rows = np.random.RandomState(2020).permutation(40)[:30]
    expected = score.measure_real(
        *classifier.features_and_logits(torch.from_numpy(images[rows])), 30
    )
    assert record.score == pytest.approx(expected.score, rel=1e-6)
    assert (record.protocol, record.images, record.metrics, key) == (score.protocol, 30, {}, None)

    assert (record.qualities.images, record.feature_counts.mean) == (40, counts.mean())
    of_groups = [group.mean for group in record.group_counts.values()]
    assert of_groups == [counts[rows < 20].mean(), counts[rows >= 20].mean()]
    assert measure() == (record, None)
    assert (task.calls, waits) == (1, [{"CPU": 1, "GPU": 0}])

    (file,) = (key for key in store.list() if "/real/" in key)
    whole = store.get(file)
    for damaged in (b"", whole[:-9], whole.replace(b" 30,", b" 31,")):
        assert damaged != whole
        store.put(file, damaged)
        assert measure() == (record, None)
        assert store.get(file) == whole
        task.calls = 1

    record, key = measure(metrics=["fid", "density_coverage"], count=400, splits=1)
    assert key is not None
    assert (record.images, task.calls) == (40, 2)
    assert list(record.metrics) == ["fid", "density", "coverage"]
    kept = feature_file.read(str(store.local(key)), classifier)
    ordered = torch.from_numpy(images[np.random.RandomState(2020).permutation(40)])
    assert torch.equal(kept.features, classifier.features_and_logits(ordered)[0].double())
    store.delete(key)
    measure(metrics=["fid", "density_coverage"], count=400, splits=1)
    assert store.exists(key)

    classified = []

    def classify(classifier: Any, generate: Any, count: int, size: int) -> Any:
        classified.append(count)
        return scores.classify(classifier, generate, count, size)

    monkeypatch.setattr(real_images, "classify", classify)
    other, same = measure(metrics=["fid", "density_coverage"], count=10, splits=1)
    assert (same, classified) == (key, [10])  # and not all 40 again
    assert (record.metrics_images, other.metrics_images) == ((20, 20), (10, 30))
    assert other.score == pytest.approx(measure(count=10, splits=1)[0].score, rel=1e-6)


def test_images_that_the_classifier_was_fitted_to_are_not_scored(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 images the labelled 30 of `a` and 10 of `b` are split; 15 % of these are held out."""
    put_counted(store, "features/b-0", images[:10], range(10), ["z"] * 10)
    put_counted(store, "features/a-0", images, range(40), ["x", "y"] * 15 + [None] * 10)
    other = DATA.model_copy(update={"name": "b", "key": "features/b-0", "images": 10})
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    expected = np.ones(40, bool)
    expected[[i % 30 for i in order[6:]]] = False  # the 10 of `b` are the first of `a`
    found = classifier.unseen(store, [DATA, other], DATA)
    assert (found == expected).all()
    assert classifier.unseen(store, [other], DATA)[10:].all()
    assert classifier.unseen(store, [], DATA).all()

    monkeypatch.setattr(real_images, "_measure", Here(real_images._measure))
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(real_images, "count_features", lambda *_: np.arange(9))
    chosen = CLASSIFIER._replace(trained_on=(DATA, other))
    settings = ScoreSettings.model_validate(SETTINGS | {"metrics": ["fid"]})
    real = real_images.RealImages("a", DATA, settings, chosen, FEATURES, None, gpu=False)
    record = real.measure(store, 1, lambda *_: None)
    assert (record.images, record.metrics_images) == (
        sum(expected),
        (sum(expected), 40 - sum(expected)),
    )
    assert record.features_key == real.features_key


@pytest.mark.parametrize(
    ("number", "settings", "says"),
    [
        (1, {"splits": 1, "metrics": ["fid"]}, r"^data\.a: .* 1 in all, .* fid: it takes 2"),
        (3, {"splits": 1, "metrics": ["fid", "precision_recall"]}, "precision_recall: it takes 4"),
        (5, {"splits": 1, "metrics": ["density_coverage"]}, "density_coverage: it takes 6"),
    ],
)
def test_too_few_real_images_are_reported_before_any_is_scored(
    store: Store, number: int, settings: dict[str, Any], says: str
) -> None:
    data = DATA.model_copy(update={"images": number})
    score = ScoreSettings.model_validate(SETTINGS | settings)
    real = real_images.RealImages("a", data, score, CLASSIFIER, FEATURES, None, gpu=False)
    with pytest.raises(UserError, match=says):
        real.measure(store, 1, lambda *_: None)


@pytest.mark.parametrize(("name", "metric"), METRICS.items())
def test_a_metric_is_a_number_from_its_fewest_real_images_on(name: str, metric: Metric) -> None:
    features = torch.randn(metric.fewest_real + 9, 3, generator=torch.Generator().manual_seed(0))
    real = FeatureStatistics(features[9:])
    assert np.isfinite([*measure(name, real, features[:9]).values()]).all()
