"""The schemas of the small JSON files beside the run records: groups, data sets, measurements.

They ignore keys they do not know, so that tables can be made from the files of a later version.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.records.run_record import CellRecord
from harness.storage.sealed import Sealed


class GroupRecord(BaseModel):
    """One feature group, as `groups/*.json` tells it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    centroid: float
    size: int
    lowest: int | float
    highest: int | float


class GroupsRecord(Sealed):
    """The feature groups of one data set, and how many images have each value."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[2]
    data: str
    by: str
    """What images are grouped by: `feature_count`, or another of `groups.by`."""
    label: str
    """What these values are, with their unit."""
    method: str
    k: int
    groups: list[GroupRecord]
    histogram: dict[int | float, int]

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

    @model_validator(mode="after")
    def _groups_are_the_histograms(self) -> GroupsRecord:
        """Sizes and centroids follow from the histogram: what does not agree was damaged."""
        for group in self.groups:
            inside = {v: n for v, n in self.histogram.items() if group.lowest <= v <= group.highest}
            size = sum(inside.values())
            total = sum(value * images for value, images in inside.items())
            if size != group.size or abs(total - group.centroid * size) > 1e-6 * max(1, abs(total)):
                raise ValueError(f"damaged: group {group.number} is not that of the histogram")
        if sum(group.size for group in self.groups) != sum(self.histogram.values()):
            raise ValueError("damaged: the histogram has images outside of all groups")
        return self


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


class QualityRecord(BaseModel):
    """`featgan.qualities.Qualities` of a sample of images."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=True)

    images: int
    sharpness: float
    saturation: float
    colourfulness: float
    diversity: float
    near_duplicates: float
    nearest_training: float


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
    qualities: QualityRecord
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
    asked: str = ""
    """Hash of all that the measurement depends on: the name under which the data set keeps it."""
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
    qualities: QualityRecord
    feature_counts: CountStatistics | None
    group_counts: dict[int, CountStatistics] = Field({})
    """By feature group, of the images that were grouped by their full-size counts."""
