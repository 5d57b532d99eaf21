from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from synthetic_features import features

from featgan.scores.metrics import statistics
from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.precision_recall import precision_recall
from featgan.scores.metrics.registry import FUNCTIONS, measure
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.settings import METRICS, lower_is_better, reported


def test_values_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, real = features(70, 6, 1), features(90, 6, 2)
    whole = {name: m(FeatureStatistics(real), generated) for name, m in FUNCTIONS.items()}
    monkeypatch.setattr(statistics, "ROWS", 16)
    for name, metric in FUNCTIONS.items():
        assert metric(FeatureStatistics(real), generated) == pytest.approx(whole[name])


def test_real_images_are_processed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FeatureStatistics(features(50, 6, 2))
    first = {name: m(real, features(40, 6, 1)) for name, m in FUNCTIONS.items()}
    monkeypatch.setattr(torch.linalg, "qr", None)
    assert {name: m(real, features(40, 6, 1)) for name, m in FUNCTIONS.items()} == first


def test_metrics_do_not_touch_global_random_generators() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    real, generated = features(90, 6, 2), features(40, 6, 1)
    values = [metric(FeatureStatistics(real), generated) for metric in FUNCTIONS.values()]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    np.random.seed(2)
    again = [metric(FeatureStatistics(real), generated) for metric in FUNCTIONS.values()]
    assert values == again
    assert np.isfinite(np.hstack(values)).all()


def test_fid_and_coverage_depend_on_the_numbers_of_images_but_kid_does_not() -> None:
    """Of two samples of one distribution; KID is 0 on average."""

    def found(real_images: int, images: int) -> dict[str, np.ndarray]:
        rows = []
        for n in range(20):
            real, generated = features(real_images, 16, n), features(images, 16, 100 + n)
            row = {m: measure(m, FeatureStatistics(real), generated) for m in FUNCTIONS}
            rows.append([row["fid"]["fid"], row["density_coverage"]["coverage"], row["kid"]["kid"]])
        return dict(zip(("fid", "coverage", "kid"), np.transpose(rows), strict=True))

    few, many, fewer = found(60, 60), found(240, 240), found(240, 60)
    assert few["fid"].mean() > 2.5 * many["fid"].mean()
    assert fewer["coverage"].mean() < 0.9 * many["coverage"].mean()
    for kid in (few["kid"], many["kid"], fewer["kid"]):
        assert abs(kid.mean()) < 2.5 * kid.std() / len(kid) ** 0.5


def test_numbers_have_their_reported_names():
    real, generated = FeatureStatistics(features(90, 6, 2)), features(40, 6, 1)
    found = measure("precision_recall", real, generated)
    assert found == dict(
        zip(["precision", "recall"], precision_recall(real, generated), strict=True)
    )
    assert measure("fid", real, generated) == {"fid": frechet_distance(real, generated)}
    names = [name for metric in METRICS for name in measure(metric, real, generated)]
    assert names == reported([*METRICS])


def test_a_user_defined_metric(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_metrics.py").write_text(
        "def gap(real, generated):\n    return (real.mean - generated.mean(dim=0)).abs().max()\n"
    )
    real, generated = FeatureStatistics(torch.zeros(5, 2)), torch.tensor([[1.0, -3.0]] * 4)
    assert measure("own_metrics:gap", real, generated) == {"gap": 3.0}
    assert reported(["kid", "own_metrics:gap"]) == ["kid", "kid_sd", "gap"]
    sys.modules.pop("own_metrics")


def test_fid_and_kid_are_better_when_lower():
    lower = [name for name in reported([*METRICS]) if lower_is_better(name)]
    assert lower == ["fid", "kid", "kid_sd", "cmmd"]
