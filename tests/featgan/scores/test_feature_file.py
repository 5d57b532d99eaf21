from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featgan.errors import UserError
from featgan.scores import feature_file
from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.statistics import FeatureStatistics


@pytest.fixture
def classifier() -> SimpleNamespace:
    return SimpleNamespace(name="classifier", digest="ab" * 32, device=torch.device("cpu"))


@pytest.fixture
def features() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 1, (40, 6)).astype(np.float32))


def test_features_are_restored_exactly(tmp_path: Path, classifier, features) -> None:
    path = tmp_path / "real.safetensors"
    path.write_bytes(feature_file.dump(features, classifier, "real"))
    found, fresh = feature_file.read(str(path), classifier), FeatureStatistics(features)
    generated = features[:20] * 1.1

    assert torch.equal(found.features, fresh.features)
    assert frechet_distance(found, generated) == frechet_distance(fresh, generated)
    assert torch.equal(found.radii(3), fresh.radii(3))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone", "another classifier", "moved"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, classifier, features, damage) -> None:
    path = tmp_path / "real.safetensors"
    data = feature_file.dump(features, classifier, "real")
    if damage == "another classifier":
        classifier.digest = "cd" * 32
    if damage == "moved":
        data = feature_file.dump(features, classifier, "another")
    flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    if damage != "gone":
        path.write_bytes({"cut": data[:-9], "flip": flipped, "empty": b""}.get(damage, data))
    with pytest.raises(UserError, match=r"real\.safetensors.* delete it; the next sweep") as caught:
        feature_file.read(str(path), classifier)
    assert "\n" not in str(caught.value)
