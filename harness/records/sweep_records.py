"""The schemas of the small JSON files beside the run records: groups, data sets, measurements.

They ignore keys they do not know, so that tables can be made from the files of a later version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from featgan.features.groups import FeatureGroups, Group
from featgan.scores.image_quality import Qualities
from harness.records.run_record import CellRecord
from harness.storage.sealed import Sealed


class GroupsRecord(Sealed):
    """The feature groups of one data set, and how many images have each value."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[2] = 2
    data: str
    by: str
    """What images are grouped by: `feature_count`, or another of `groups.by`."""
    label: str
    """What these values are, with their unit."""
    method: str
    k: int
    groups: tuple[Group, ...]
    histogram: dict[int | float, int]

    @property
    def split(self) -> FeatureGroups:
        """The groups, to assign images to."""
        return FeatureGroups(self.by, self.method, self.k, self.groups, self.histogram)

    @property
    def title(self) -> str:
        """How the groups were made."""
        by = "" if self.by == "feature_count" else f"{self.by}, "
        return f"{by}{self.method}, k = {self.k}"

    @property
    def digits(self) -> int:
        """Decimals that tell the groups' values apart: one for feature counts, as in the paper."""
        span = self.groups[-1].highest - self.groups[0].lowest
        return max(1, 3 - math.ceil(math.log10(span))) if span > 0 else 1


class SweepRecord(Sealed):
    """What a sweep asks for; `sweep.json` is this model as sealed JSON."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    name: str
    cells: list[CellRecord]
    runs: list[str] | None = None
    """Folders of the runs of these cells; None: whatever is there."""
    notes: list[str] = Field([])
    """Sentences that every table repeats."""


class DataRecord(Sealed):
    """How one data set of the sweep was made."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    name: str
    source: dict[str, Any] = Field({})
    key: str = ""
    digest: str = ""
    images: int
    rejected: int = 0
    duplicates: int = 0
    matched: int | None = None
    protocol: dict[str, Any] = Field({})
    classes: list[str] = Field([])
    rejections: list[dict[str, Any]] = Field([])


class CountStatistics(BaseModel):
    """Feature counts of a sample of images."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    images: int
    mean: float
    sd: float


class Rescored(Sealed):
    """A trained generator measured again, with noise that its training never saw."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    generator_sha256: str
    protocol: str
    """Of `score`: many images."""
    score: float
    score_std: float
    same_protocol: str
    """Of `fresh_scores`: the protocol of the run's own evaluations."""
    fresh_scores: list[float]
    """One score for each disjoint set of images as large as an evaluation's."""
    qualities: Qualities
    feature_counts: CountStatistics | None
    """Of generated images; None where VGG16's weights were not to be had."""
    device: str
    seconds: float


class RealScore(Sealed):
    """The score of a data set's real images, measured as those of a generator: the ceiling."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    name: str
    digest: str
    protocol: str
    """That of the runs whose ceiling this is; but `images` may be fewer than its n."""
    images: int
    score: float
    score_std: float
    metrics: dict[str, float] = Field({})
    """Of a part of them, at most half of all, against the others."""
    metrics_images: tuple[int, int] | None = None
    """How many that part holds, and how many the others are."""


class RealRecord(Sealed):
    """The same measurements of the real images of a data set, at the size they are trained at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    name: str
    digest: str
    qualities: Qualities
    feature_counts: CountStatistics | None
    group_counts: dict[int, CountStatistics] = Field({})
    """By feature group, of the images that were grouped by their full-size counts."""
