"""Where images come from: folders, buckets, Parquet, archives, CelebA, torchvision's sets."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from harness.sources.archive import ArchiveSource
from harness.sources.base import Found, Row, Source
from harness.sources.builtin import BuiltinSource
from harness.sources.celeba import CelebASource
from harness.sources.folder import FolderSource
from harness.sources.parquet import ParquetSource
from harness.sources.torchvision_sets import TorchvisionSource

Single = (
    FolderSource | ParquetSource | ArchiveSource | CelebASource | TorchvisionSource | BuiltinSource
)


class UnionSource(Source):
    """Several sources as one data set."""

    source: Literal["union"]
    sources: dict[
        Annotated[str, Field(pattern=r"^[\w.-]+$")],
        Annotated[Single, Field(discriminator="source")],
    ] = Field(min_length=1)
    """Sources by a name of your choice, which becomes the `origin` of their images."""

    @field_validator("sources")
    @classmethod
    def _one_place_for_changes(cls, sources: dict[str, Single]) -> dict[str, Single]:
        for name, part in sources.items():
            for key in ("remove_duplicates", "corrupt", "held_out"):
                if getattr(part, key):
                    raise ValueError(f"set {key} next to `sources`, not in {name}")
        return sources

    def find(self, image_size: int) -> Found:
        """Find the images of all sources; an `image_id` begins with the name of its source."""
        parts = {name: part.find(image_size) for name, part in self.sources.items()}
        matched = [part.matched for part in parts.values() if part.matched is not None]
        skipped = Counter[str]()
        return Found(_prefixed(parts, skipped), sum(matched) if matched else None, skipped)

    @property
    def has_labels(self) -> bool:
        """Return whether one of the sources may give labels."""
        return any(part.has_labels for part in self.sources.values())

    def read(self, location: bytes) -> bytes:
        """Return the encoded bytes of an image of the source that its location begins with."""
        name, _, place = location.partition(b":")
        return self.sources[name.decode()].read(place)

    def files(self) -> list[str]:
        """Return the files of all sources."""
        return [file for part in self.sources.values() for file in part.files()]


def _prefixed(parts: dict[str, Found], skipped: Counter[str]) -> Iterator[Row]:
    for name, part in parts.items():
        for row in part.rows:
            image_id, location = f"{name}/{row.image_id}", name.encode() + b":" + row.location
            yield row._replace(image_id=image_id, location=location, origin=name)
        skipped.update(part.skipped)


SourceSettings = Annotated[Single | UnionSource, Field(discriminator="source")]
