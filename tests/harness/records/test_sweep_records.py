"""Records that contain what featgan measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featgan.features.groups import FeatureGroups
from featgan.features.settings import GroupSettings
from featgan.scores.image_quality import Qualities
from harness.records.sweep_records import CountStatistics, GroupsRecord, Rescored


@pytest.mark.parametrize("values", [[1, 2, 10, 11, 20], [0.1, 1 / 3, 2e-9, 7.5, 7.5]])
def test_groups_are_read_as_they_were_written(values: list[float]) -> None:
    groups = FeatureGroups.fit(np.array(values), GroupSettings(k=2))
    written = GroupsRecord(data="apples", label="feature count", **vars(groups)).to_json()

    read = GroupsRecord.model_validate_json(written)
    assert read.split == groups
    assert (read.data, read.label) == ("apples", "feature count")


def test_qualities_may_be_nan() -> None:
    qualities = Qualities(1, 15.0, 0.4, 40.0, math.nan, 0.0, math.inf)
    counts = CountStatistics(images=1, mean=9.0, sd=math.nan)
    written = Rescored(
        generator_sha256="0a1b", images=9, protocol="p", score=2.5, score_std=0.1,
        same_protocol="p", fresh_scores=[], last_fresh_scores=[], score_as_real=None,
        metrics_as_real={}, qualities=qualities, feature_counts=counts,
        device="cpu",
    ).to_json()  # fmt: skip

    read = Rescored.model_validate_json(written).qualities
    assert math.isnan(read.diversity)
    assert math.isinf(read.nearest_training)
