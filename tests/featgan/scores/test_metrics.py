import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from featgan.scores import metrics
from featgan.scores.metrics import (
    FUNCTIONS,
    FeatureStatistics,
    density_coverage,
    frechet_distance,
    kernel_distance,
    measure,
    precision_recall,
)
from featgan.scores.settings import METRICS, lower_is_better, reported


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated, positive, float32: like a network's pooled features."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=random) @ mix + shift).relu()


def line(*points: float) -> Tensor:
    return torch.tensor(points)[:, None]


SIZES = [(300, 400, 20), (50, 60, 80), (300, 40, 64), (40, 300, 64)]


@pytest.mark.parametrize(("n", "real_n", "d"), SIZES)
def test_fid_equals_torch_fidelitys(n: int, real_n: int, d: int) -> None:
    generated, real = features(n, d, 1, 0.1), features(real_n, d, 2)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(generated.double()),
        fid_features_to_statistics(real.double()),
        verbose=False,
    )["frechet_inception_distance"]
    ours = frechet_distance(FeatureStatistics(real), generated)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_fid_of_two_lines_by_hand() -> None:
    # Means 1 and 4, variances 2 and 8: 3² + 2 + 8 - 2 √16.
    real, generated = FeatureStatistics(line(0, 2)), line(2, 6)
    assert frechet_distance(real, generated) == pytest.approx(9 + 2 + 8 - 8, rel=1e-12)


def test_fid_of_the_same_images_is_zero() -> None:
    same = features(200, 30, 0)
    assert frechet_distance(FeatureStatistics(same), same) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("part", [0.9, 0.1], ids=["of all pairs", "of each draw's"])
@pytest.mark.parametrize(("n", "real_n", "d"), [*SIZES, (2100, 50, 3)])
def test_kid_equals_torch_fidelitys(n: int, real_n: int, d: int, part: float) -> None:
    generated, real = features(n, d, 1, 0.1), features(real_n, d, 2)
    size = int(min(n, real_n) * part)
    theirs = kid_features_to_metric(
        generated.double(), real.double(), kid_subsets=7, kid_subset_size=size, verbose=False
    )["kernel_inception_distance_mean"]
    ours = kernel_distance(FeatureStatistics(real), generated, subsets=7, size=size)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_kid_remembers_of_the_real_images_only_what_was_drawn() -> None:
    real, some, others = features(90, 9, 0), features(80, 9, 1), features(60, 9, 2)
    kept = FeatureStatistics(real)
    for generated in (some, some + 1, others, some):
        alone = kernel_distance(FeatureStatistics(real), generated, subsets=3, size=40)
        assert kernel_distance(kept, generated, subsets=3, size=40) == alone


def test_kid_by_hand() -> None:
    # k(x, y) = (xy + 1)³: k(0, 1) = 1 twice; k(1, 2) = 27 twice; across: 1, 1, 8, 27.
    real, generated = FeatureStatistics(line(0, 1)), line(1, 2)
    assert kernel_distance(real, generated) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kid_of_equally_many_images_needs_no_subsets() -> None:
    generated, real = features(60, 9, 1), FeatureStatistics(features(60, 9, 2))
    assert kernel_distance(real, generated) == pytest.approx(
        kernel_distance(real, generated[torch.randperm(60)], subsets=3), rel=1e-9
    )


@pytest.mark.parametrize(("n", "real_n", "d"), SIZES)
def test_precision_and_recall_equal_torch_fidelitys(n: int, real_n: int, d: int) -> None:
    generated, real = features(n, d, 1, 0.2), features(real_n, d, 2)
    theirs = prc_features_to_metric(
        generated.double(), real.double(), prc_neighborhood=3, verbose=False
    )
    ours = precision_recall(FeatureStatistics(real), generated)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)
    assert 0 < ours[0] < 1


def test_precision_and_recall_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MANIFOLD_NEIGHBOURS", 1)
    # Real balls: 0±1, 1±1, 10±9, so 25 alone is outside. Generated balls: 0.5±1.5, 2±1.5, 25±23.
    real, generated = FeatureStatistics(line(0, 1, 10)), line(0.5, 2, 25)
    assert precision_recall(real, generated) == pytest.approx((2 / 3, 1.0))
    assert precision_recall(real, line(-50, -49, -48)) == (0.0, 0.0)


def test_density_and_coverage_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DENSITY_NEIGHBOURS", 1)
    # Real balls: 0±1, 1±1, 10±9. 0.5 lies in two; 2.5 in one; 30 in none. 10's holds 2.5.
    real = FeatureStatistics(line(0, 1, 10))
    assert density_coverage(real, line(0.5, 2.5, 30)) == pytest.approx((3 / 3, 1.0))
    assert density_coverage(real, line(0.5, 0.5, 0.5)) == pytest.approx((2.0, 2 / 3))


def test_density_and_coverage_of_real_images_are_about_one() -> None:
    real = FeatureStatistics(features(600, 8, 1))
    density, coverage = density_coverage(real, features(600, 8, 2))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9


def test_rows_taken_in_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, real = features(70, 6, 1), features(90, 6, 2)
    whole = {name: m(FeatureStatistics(real), generated) for name, m in FUNCTIONS.items()}
    monkeypatch.setattr(metrics, "ROWS", 16)
    for name, metric in FUNCTIONS.items():
        assert metric(FeatureStatistics(real), generated) == pytest.approx(whole[name])


def test_what_is_real_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FeatureStatistics(features(50, 6, 2))
    first = {name: m(real, features(40, 6, 1)) for name, m in FUNCTIONS.items()}
    monkeypatch.setattr(torch.linalg, "qr", None)
    assert {name: m(real, features(40, 6, 1)) for name, m in FUNCTIONS.items()} == first


def test_metrics_neither_read_nor_move_global_generators() -> None:
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


def test_too_few_images_for_neighbours_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 images have no 3 neighbours"):
        precision_recall(FeatureStatistics(line(1, 2, 3)), line(1, 2, 3, 4))


def test_numbers_by_the_names_they_are_reported_under():
    real, generated = FeatureStatistics(features(90, 6, 2)), features(40, 6, 1)
    found = measure("precision_recall", real, generated)
    assert found == dict(
        zip(["precision", "recall"], precision_recall(real, generated), strict=True)
    )
    assert measure("fid", real, generated) == {"fid": frechet_distance(real, generated)}
    names = [name for metric in METRICS for name in measure(metric, real, generated)]
    assert names == reported([*METRICS])


def test_a_metric_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_metrics.py").write_text(
        "def gap(real, generated):\n    return (real.mean - generated.mean(dim=0)).abs().max()\n"
    )
    real, generated = FeatureStatistics(torch.zeros(5, 2)), torch.tensor([[1.0, -3.0]] * 4)
    assert measure("own_metrics:gap", real, generated) == {"gap": 3.0}
    assert reported(["kid", "own_metrics:gap"]) == ["kid", "gap"]
    sys.modules.pop("own_metrics")


def test_distances_are_better_when_lower():
    assert [name for name in reported([*METRICS]) if lower_is_better(name)] == ["fid", "kid"]
