"""The interface of an image source, torch-free and light: sweep files are checked with it.

A source finds its images (`find`) and reads one of them by its location, on any machine that sees
the same files. Decoding, counting and copying are not its business.
"""

import heapq
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from featgan.digests import short_hash
from featgan.errors import UserError, first_line
from featgan.settings import Settings
from harness.sources.corrupt import Corruption

Place = Annotated[str, Field(min_length=1)]
"""A path or a URI; an empty one would mean the current folder."""


def _no_empty_path(path: str | list[str]) -> str | list[str]:
    if not path or "" in [*path]:
        raise ValueError("name a folder or a file; the current folder is `.`")
    return path


Places = Annotated[str | list[str], AfterValidator(_no_empty_path)]
"""A path or a URI, or several."""


class Row(NamedTuple):
    """One image of a source."""

    image_id: str
    """Unique in its source, UTF-8."""
    location: bytes
    """The argument of the source's `read`."""
    label: str | None
    stamp: str
    """Changes whenever the image changes."""
    problem: str | None = None
    """The reason why this only looks like an image, such as a folder named `x.jpg`."""
    origin: str | None = None
    """Name of the image's source in a union."""


@dataclass(frozen=True)
class Found:
    """The images of a source, one after another; may raise UserError while they are read."""

    rows: Iterable[Row]
    matched: int | None = None
    """Images that passed the source's filter, before any limit; None without a filter."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that are not taken for images, by kind; complete once all rows are read."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Raise any error, of which each client of a bucket has its own, as a UserError with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data: {what}: {first_line(error)}") from error


def describe(skipped: Mapping[str, int]) -> str:
    """Return how many files of which kinds were skipped, or `nothing`."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items())) or "nothing"


class Source(Settings):
    """Settings and methods that every source has."""

    remove_duplicates: bool = False
    """Keep only one of images whose pixels are equal; `duplicates.csv` lists the others."""
    corrupt: Corruption | None = None
    """Corruption of shares of the images, such as `{duplicate: 0.3}`; null: none."""
    held_out: float = Field(0.0, ge=0, le=0.5)
    """Chance of each image to be held out: never trained on or grouped, but what metrics compare
    with the others as real images. It is drawn once, by pixels. 0: none."""

    @model_validator(mode="after")
    def _possible_corruption(self) -> Self:
        if self.remove_duplicates and self.corrupt and self.corrupt.duplicate:
            raise ValueError("remove_duplicates would undo corrupt.duplicate: drop one of them")
        mixed = {*self.corrupt.mixed} if self.corrupt else set()
        if mixed and not mixed < {*getattr(self, "sources", ())}:
            raise ValueError("corrupt.mixed: names some `sources` of a union, and their shares")
        if self.held_out and self.corrupt and self.corrupt.duplicate:
            raise ValueError("held_out: copies by corrupt.duplicate could be trained on: drop one")
        return self

    @abstractmethod
    def find(self, image_size: int) -> Found:
        """Find all images; `image_size` is the side in pixels at which the sweep trains."""

    @property
    def has_labels(self) -> bool:
        """Return whether any of its images may have a label."""
        return getattr(self, "labels", getattr(self, "label", True)) is not None

    @abstractmethod
    def read(self, location: bytes) -> bytes:
        """Return the encoded bytes of an image; raises OSError if they cannot be read."""

    def files(self) -> list[str]:
        """Return the absolute paths of local files and folders that it reads."""
        return []


class LimitedSource(Source):
    """A source of which a sweep may take a part."""

    limit: int | None = Field(default=None, ge=1)
    """Most images, drawn by `seed`; null: all."""
    seed: int = Field(default=0, ge=0)
    """Draws the images that `limit` keeps."""

    def draw(self, rows: Iterable[Row]) -> Iterable[Row]:
        """Return the rows, or `limit` of them, which do not depend on their order."""
        if self.limit is None:
            return rows
        return heapq.nsmallest(self.limit, rows, lambda row: short_hash(self.seed, row.image_id))
