"""Where images come from: folders, CelebA, torchvision's sets, IDX files, built-in sets.

A source lists its images (`listing`), and its reader fetches one of them by its location, on
any machine that sees the same files. Decoding, counting and copying are not its business.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from featgan.settings import Settings
from harness.sources import builtin, celeba, idx, torchvision_sets
from harness.sources import folder as folders
from harness.sources.folder import Row
from harness.storage import memory
from harness.storage.memory import SLICE

Read = Callable[[bytes], bytes]
"""The encoded bytes of the image at a location; OSError where they cannot be had."""

Place = Annotated[str, Field(min_length=1)]
"""A path or a URI; an empty one would be the folder the command is started in."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.large_string()),
        ("location", pa.large_binary()),
        ("label", pa.large_string()),
        ("stamp", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Listing:
    """The images of a source, before any of them is opened."""

    images: pd.DataFrame
    """`image_id` (unique, UTF-8), `location` (bytes for the reader), `label` (or None), `stamp`
    (changes when the image does); of a union also `origin`."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reason by `image_id`: what looks like an image, but cannot be one."""
    matched: int | None = None
    """Images that a filter left, before any limit; None where nothing was filtered."""

    @property
    def found(self) -> int:
        """All of them, those with a problem too."""
        return len(self.images) + len(self.problems)

    @classmethod
    def of(cls, rows: Iterable[Row], matched: int | None = None, *, sort: bool = False) -> Listing:
        """From a source's rows, a slice at a time: as Python's objects they take ten times as much.

        `sort` puts them in the order of their `image_id`.
        """
        tables, problems, rows = [], dict[str, str](), iter(rows)
        while some := list(islice(rows, SLICE)):
            tables.append(_table([row[:-1] for row in some if row.problem is None]))
            problems |= {row.image_id: row.problem for row in some if row.problem is not None}
        images = pa.concat_tables(tables or [_table([])])
        if sort:
            images = images.take(pc.sort_indices(images["image_id"]))
        found = cls(_frame(images), problems, matched)
        del tables, images
        memory.release()
        return found

    def digest(self) -> str:
        """Hash that changes when an image is added, removed, renamed or written anew."""
        hashed = hashlib.sha256(repr(sorted(self.problems.items())).encode())
        for start in range(0, len(self.images), SLICE):  # all at once would be held thrice
            rows = self.images.iloc[start : start + SLICE].drop(columns="location")
            values = pd.util.hash_pandas_object(rows.fillna("").astype(str), index=False)
            hashed.update(values.to_numpy().tobytes())
        memory.release()
        return hashed.hexdigest()


class Source(Settings):
    """What every source can do."""

    remove_duplicates: bool = False
    """Keep only the first of images whose bytes are equal; `duplicates.csv` lists the others."""

    @abstractmethod
    def listing(self, image_size: int) -> Listing:
        """All images, in a lasting order; `image_size` is the side the sweep trains at."""

    @abstractmethod
    def reader(self) -> Read:
        """What reads an image by its location; made once in each process."""

    def files(self) -> list[str]:
        """Local files and folders that every reader needs, as absolute paths."""
        return []

    def searched(self) -> list[str]:
        """Of local folders, those in which any file counts, as absolute paths."""
        return []


class FolderSource(Source):
    """Image files in folders, at any depth."""

    source: Literal["folder"]
    path: str | list[str]
    """A folder, or several: local paths or URIs such as `s3://bucket/folder`."""
    labels: Literal["folder"] | None = None
    """`folder`: an image's label is the name of the folder it lies in."""

    @field_validator("path")
    @classmethod
    def _no_empty_path(cls, path: str | list[str]) -> str | list[str]:
        if not path or "" in [*path]:
            raise ValueError("name a folder; the one the command is started in is `.`")
        return path

    def listing(self, image_size: int) -> Listing:
        """Every file with an image's ending, sorted by path."""
        return Listing.of(folders.list_images(self._paths(), self.labels is not None), sort=True)

    def reader(self) -> Read:
        """Reads files, local or remote."""
        return folders.read

    def files(self) -> list[str]:
        """The folders that are in no bucket."""
        return _local(*self._paths())

    def searched(self) -> list[str]:
        """Whatever has an image's ending is one."""
        return self.files()

    def _paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class CelebASource(Source):
    """CelebA as it is published: `img_align_celeba/` beside `list_attr_celeba.txt`."""

    source: Literal["celeba"]
    path: Place
    """The folder that holds both."""
    attributes: dict[str, bool] = Field(default_factory=dict)
    """Which images: `{Male: true, Smiling: true}` keeps those with both, `false` those without."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many of them, drawn by `seed`."""
    seed: int = Field(default=0, ge=0)
    """Draws the images that `limit` keeps."""

    def listing(self, image_size: int) -> Listing:
        """The images whose attributes match, by number."""
        rows, matched = celeba.list_images(self.path, self.attributes, self.limit, self.seed)
        return Listing.of(rows, matched)

    def reader(self) -> Read:
        """Reads files, local or remote."""
        return folders.read

    def files(self) -> list[str]:
        """The folder, unless it is in a bucket."""
        return _local(self.path)


class TorchvisionSource(Source):
    """A labelled image set of `torchvision.datasets`."""

    source: Literal["torchvision"]
    set: str
    """Name of the class: `CIFAR10`, `Flowers102`, …"""
    path: Place
    """Folder the set lies in, or is downloaded to."""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """Further arguments of the class, such as `{train: false}` or `{split: test}`."""
    download: bool = False
    """Download the set where it is missing."""

    def listing(self, image_size: int) -> Listing:
        """All images, by index."""
        return Listing.of(
            torchvision_sets.list_images(self.set, self.path, self.options, self.download)
        )

    def reader(self) -> Read:
        """Takes an image of the set and encodes its pixels."""
        return torchvision_sets.read

    def files(self) -> list[str]:
        """The folder, which a download may still have to make."""
        return [] if self.download else _local(self.path)

    def searched(self) -> list[str]:
        """A new file of any kind has the set listed, and counted, anew."""
        return _local(self.path)


class IdxSource(Source):
    """A file of images in MNIST's format, plain or gzipped."""

    source: Literal["idx"]
    images: Place
    """File such as `train-images-idx3-ubyte.gz`."""
    labels: Place | None = None
    """File such as `train-labels-idx1-ubyte.gz`."""

    def listing(self, image_size: int) -> Listing:
        """All images, by index."""
        return Listing.of(idx.list_images(self.images, self.labels))

    def reader(self) -> Read:
        """Takes an image of the file and encodes its pixels."""
        return idx.read

    def files(self) -> list[str]:
        """The file; labels are read by the sweep's driver alone."""
        return _local(self.images)


class BuiltinSource(Source):
    """A set that needs no download."""

    source: Literal["builtin"]
    set: Literal["apples", "digits"]
    """`apples` (drawn, diverse, labelled by variety) or `digits` (scikit-learn's 1,797 handwritten
    digits, 8x8, narrow)."""
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many: of apples up to a million (default 600), of digits 1,797 (default all)."""
    seed: int = Field(default=0, ge=0)
    """Draws other apples; chooses other digits where `count` is not all."""

    def listing(self, image_size: int) -> Listing:
        """Apples are drawn twice as large as the sweep trains at."""
        return Listing.of(builtin.list_images(self.set, self.count, self.seed, 2 * image_size))

    def reader(self) -> Read:
        """Draws an apple, or looks a digit up."""
        return builtin.READERS[self.set]


Single = FolderSource | CelebASource | TorchvisionSource | IdxSource | BuiltinSource


class UnionSource(Source):
    """Several sources as one data set."""

    source: Literal["union"]
    sources: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")],
        Annotated[Single, Field(discriminator="source")],
    ] = Field(min_length=1)
    """Sources by a name of your choice, which becomes the `origin` of their images."""

    @field_validator("sources")
    @classmethod
    def _one_place_for_duplicates(cls, sources: dict[str, Single]) -> dict[str, Single]:
        for name, part in sources.items():
            if part.remove_duplicates:
                raise ValueError(f"set remove_duplicates beside `sources`, not in {name}")
        return sources

    def listing(self, image_size: int) -> Listing:
        """The sources' images one after another; an `image_id` begins with its origin."""
        tables: list[pd.DataFrame] = []
        problems: dict[str, str] = {}
        matched: int | None = None
        for name, part in self.sources.items():
            listed = part.listing(image_size)
            images = listed.images.assign(origin=name)
            images["image_id"] = name + "/" + images["image_id"]
            images["location"] = _prefixed(name.encode() + b":", images["location"])
            tables.append(images)
            problems |= {f"{name}/{image}": why for image, why in listed.problems.items()}
            if listed.matched is not None:
                matched = (matched or 0) + listed.matched
        return Listing(pd.concat(tables, ignore_index=True), problems, matched)

    def files(self) -> list[str]:
        """Those of all its sources."""
        return [file for part in self.sources.values() for file in part.files()]

    def searched(self) -> list[str]:
        """Those of all its sources."""
        return [folder for part in self.sources.values() for folder in part.searched()]

    def reader(self) -> Read:
        """Asks the reader of the image's origin."""
        readers = {name.encode(): part.reader() for name, part in self.sources.items()}

        def read(location: bytes) -> bytes:
            name, _, place = location.partition(b":")
            return readers[name](place)

        return read


def _table(rows: list[Any]) -> pa.Table:
    """Rows in Arrow's columns: the schema's, of text and bytes without an object for each."""
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def _frame(images: pa.Table) -> pd.DataFrame:
    """The same for pandas, which has compact columns for text, but not yet for bytes."""
    kinds = {SCHEMA.field("location").type: pd.ArrowDtype(pa.large_binary())}
    return images.combine_chunks().to_pandas(types_mapper=kinds.get)


def _prefixed(prefix: bytes, locations: pd.Series) -> pd.Series:
    """Locations with something before them."""
    places = pa.array(locations)
    before = pa.scalar(prefix, places.type)
    nothing = pa.scalar(b"", places.type)
    joined = pc.binary_join_element_wise(before, places, nothing)
    return pd.Series(joined, index=locations.index, dtype=locations.dtype)


def _local(*paths: str) -> list[str]:
    """Those that are not URIs, resolved on the machine the command is started on."""
    return [path for path in map(folders.absolute, paths) if "://" not in path]


SourceSettings = Annotated[Single | UnionSource, Field(discriminator="source")]
