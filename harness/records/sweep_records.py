"""Schemas of a sweep's JSON files other than run records: groups, data sets, measurements.

Unknown keys are ignored, so that tables can be made from the files of a later version.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from featgan.features.groups import FeatureGroups, Group
from featgan.scores.image_quality import Qualities
from harness.records.run_record import CellRecord
from harness.storage.sealed import Sealed


class GroupsRecord(Sealed):
    """The feature groups of one data set, and the number of images of each value."""

    format: Literal[2] = 2  # type: ignore[assignment]
    data: str
    by: str
    """The value that images are grouped by, as in `groups.by`."""
    label: str
    """Description of the values, with their unit."""
    selected: str = ""
    """Which images were grouped; empty for all."""
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
        """Description of how the groups were made."""
        by = "" if self.by == "feature_count" else f"{self.by}, "
        of = f", of {self.selected}" if self.selected else ""
        return f"{by}{self.method}, k = {self.k}{of}"

    @property
    def digits(self) -> int:
        """Number of decimals that distinguish the groups; 1 for feature counts, as in the paper."""
        span = self.groups[-1].highest - self.groups[0].lowest
        return max(1, 3 - math.ceil(math.log10(span))) if span > 0 else 1


class SweepRecord(Sealed):
    """The grid of a sweep; `sweep.json` is this model as sealed JSON."""

    name: str
    cells: list[CellRecord]
    runs: list[str] | None = None
    """Folders of the runs of these cells; None for all that exist."""
    notes: list[str] = Field([])
    """Sentences that every table repeats."""
    tests: list[str] = Field([])
    """The family, such as `a > b in diversity on digits`; fixed when the first run has begun."""
    later: list[str] = Field([])
    """Tests that the present file asks for too late, without a verdict."""
    up_to: int | None = None
    """The largest number of seeds, where they are added until the claims are decided."""
    looks: list[str] = Field([])
    """Sentences on looks that were not planned, such as seeds added after a report was made."""


class DataRecord(Sealed):
    """How one data set of the sweep was made."""

    name: str
    source: dict[str, Any] = Field({})
    key: str = ""
    """Its folder in the store: `features/<name>-<hash of listing and protocol>`."""
    digest: str = ""
    """Hash of its images and counts: part of the signature of each run."""
    images: int
    rejected: int = 0
    duplicates: int = 0
    matched: int | None = None
    """Images that the source's filter left, before any limit."""
    skipped: dict[str, int] = Field({})
    """Files in the source that were not taken for images, by kind."""
    protocol: dict[str, Any] = Field({})
    """How images were counted."""
    classes: tuple[str, ...] = ()
    """Labels that occur, sorted."""
    rejections: list[dict[str, Any]] = Field([])


@dataclass(frozen=True)
class CountStatistics:
    """Feature counts of a sample of images."""

    images: int
    mean: float
    sd: float

    @classmethod
    def of(cls, counts: np.ndarray) -> Self:
        """Return the statistics of counts [n]."""
        return cls(images=len(counts), mean=float(counts.mean()), sd=float(counts.std()))


class Rescored(Sealed):
    """A trained generator measured again, with noise that its training never saw."""

    generator_sha256: str
    """Of the generator of the peak: the model that one keeps."""
    images: int
    protocol: str
    """Protocol of `score`, of many images."""
    score: float
    score_std: float
    same_protocol: str
    """Protocol of `fresh_scores`: that of the run's evaluations."""
    fresh_scores: list[float]
    """A score for each disjoint set of as many images as an evaluation has."""
    last_fresh_scores: list[float]
    """The same of the generator of the last evaluation, which nothing has chosen."""
    score_as_real: float | None
    """Mean score of sets of as many images as the score of the real images has."""
    metrics_as_real: dict[str, float]
    """Metrics of as many images, and against the same others, as those of the real images."""
    further: dict[str, dict[str, float]] = Field({})
    """Metrics that were asked for later: by a hash of the request, and `<number>: <protocol>`."""
    qualities: Qualities
    feature_counts: CountStatistics
    """Feature counts of generated images."""
    device: str


class RealRecord(Sealed):
    """Real images of a data set, at the size they are trained at, measured as generated ones."""

    name: str
    """That of the data record."""
    digest: str
    protocol: str
    """Protocol of the scores that this one compares with, except for the number of images."""
    metrics_protocol: str = ""
    """Protocol of `metrics`; empty without any."""
    images: int
    """Images of the score: none of those that the classifier was fitted to."""
    score: float
    """NaN if the images are too few for its splits."""
    score_std: float
    metrics: dict[str, float] = Field({})
    """Metrics of a part of the images against the others."""
    metrics_images: tuple[int, int] | None = None
    """Numbers of images of that part, at most half of all, and of the others."""
    held_out: float = 0.0
    """Share of the images that are never trained on, of which that part then is."""
    features_key: str | None = None
    """Store key of the features of all, that part first."""
    qualities: Qualities
    feature_counts: CountStatistics
    group_counts: dict[int, CountStatistics] = Field({})
    """Feature counts at training size by feature group; images are grouped by full-size counts."""
