"""The schemas of the small JSON files beside the run records: groups, data sets, measurements.

They ignore keys they do not know, so that tables can be made from the files of a later version.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class GroupRecord(BaseModel):
    """One feature group, as `groups/*.json` tells it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    centroid: float
    size: int
    lowest: int
    highest: int


class GroupsRecord(BaseModel):
    """The feature groups of one data set, and how many images have each feature count."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    method: str
    k: int
    groups: list[GroupRecord]
    histogram: dict[int, int]


class DataRecord(BaseModel):
    """How one data set of the sweep was made."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: dict[str, Any] = {}
    key: str = ""
    digest: str = ""
    images: int
    rejected: int = 0
    duplicates: int = 0
    matched: int | None = None
    protocol: dict[str, Any] = {}
    classes: list[str] = []
    rejections: list[dict[str, Any]] = []


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


class Rescored(BaseModel):
    """A trained generator measured again, with noise that its training never saw."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = 1
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


class RealRecord(BaseModel):
    """The same measurements of the real images of a data set, at the size they are trained at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = 1
    name: str
    digest: str
    qualities: QualityRecord
    feature_counts: CountStatistics | None
    group_counts: dict[int, CountStatistics] = {}
    """By feature group, of the images that were grouped by their full-size counts."""
