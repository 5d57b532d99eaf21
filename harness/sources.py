"""Where images come from: folders, CelebA, torchvision's sets, IDX files, built-in sets.

A source lists its images (`listing`), and `read` fetches one of them by its location, on any
machine that sees the same files. Decoding, counting and copying are not its business.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from featgan.settings import Settings
from harness import builtin, folders

Read = Callable[[bytes], bytes]
"""The encoded bytes of the image at a location; OSError where they cannot be had."""

COLUMNS = ("image_id", "location", "label", "stamp")


@dataclass(frozen=True)
class Listing:
    """The images of a source, before any of them is opened."""

    images: pd.DataFrame
    """`image_id` (unique, UTF-8), `location` (bytes for `read`), `label` (or None), `stamp`
    (changes when the image does; empty where it never does)."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reason by `image_id`: what looks like an image, but cannot be one."""
    matched: int | None = None
    """Images that a filter left, before any limit; None where nothing was filtered."""

    def digest(self) -> str:
        """Hash that changes when an image is added, removed, renamed or written anew."""
        hashed = hashlib.sha256(repr(sorted(self.problems.items())).encode())
        rows = pd.util.hash_pandas_object(self.images[["image_id", "label", "stamp"]], index=False)
        hashed.update(rows.to_numpy().tobytes())
        return hashed.hexdigest()


class Source(Settings):
    """What every source can do."""

    remove_duplicates: bool = False
    """Keep only the first of images whose files are equal byte by byte; the others are listed in
    `duplicates.csv`."""

    @abstractmethod
    def listing(self, image_size: int) -> Listing:
        """All images, in a lasting order; `image_size` is the side the sweep trains at."""

    @abstractmethod
    def reader(self) -> Read:
        """What reads an image by its location; made once in each process."""


class FolderSource(Source):
    """Image files in folders, at any depth."""

    source: Literal["folder"] = "folder"
    path: str | list[str]
    """A folder, or several: local paths or URIs such as `s3://bucket/folder`."""
    labels: Literal["folder"] | None = None
    """`folder`: an image's label is the name of the folder it lies in."""

    def listing(self, image_size: int) -> Listing:
        """Every file with an image's ending, sorted by path."""
        paths = [self.path] if isinstance(self.path, str) else self.path
        images, problems = folders.list_images(paths, self.labels is not None)
        return Listing(pd.DataFrame(images, columns=COLUMNS), problems)

    def reader(self) -> Read:
        """Reads files, local or remote."""
        return folders.read


class BuiltinSource(Source):
    """A set that needs no download."""

    source: Literal["builtin"] = "builtin"
    set: Literal["apples", "digits"]
    """`apples` (drawn, diverse, labelled by variety) or `digits` (scikit-learn's 1,797 handwritten
    digits, 8x8, narrow)."""
    count: int | None = Field(default=None, ge=1)
    """How many: of apples any number (default 600), of digits at most 1,797 (default all)."""
    seed: int = Field(default=0, ge=0)
    """Draws other apples; chooses other digits where `count` is not all."""

    def listing(self, image_size: int) -> Listing:
        """Apples are drawn twice as large as the sweep trains at."""
        images = builtin.list_images(self.set, self.count, self.seed, 2 * image_size)
        return Listing(pd.DataFrame(images, columns=COLUMNS))

    def reader(self) -> Read:
        """Draws an apple, or looks a digit up."""
        return builtin.READERS[self.set]


SourceSettings = Annotated[FolderSource | BuiltinSource, Field(discriminator="source")]
