"""The interface of an image source, torch-free and light: sweep files are checked with it.

A source finds its images (`find`) and its reader fetches one of them by location, on any machine
that sees the same files. Decoding, counting and copying are not its business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from featgan.settings import Settings
from harness.sources.rows import Found

if TYPE_CHECKING:
    from harness.sources.listing import Listing

Read = Callable[[bytes], bytes]
"""Return the encoded bytes of the image at a location; raises OSError if they cannot be read."""

Place = Annotated[str, Field(min_length=1)]
"""A path or a URI; an empty one would mean the current folder."""


class Source(Settings):
    """Settings and methods that every source has."""

    remove_duplicates: bool = False
    """Keep only the first of images whose bytes are equal; `duplicates.csv` lists the others."""

    @abstractmethod
    def find(self, image_size: int) -> Found:
        """Find all images; `image_size` is the side in pixels at which the sweep trains."""

    @abstractmethod
    def reader(self) -> Read:
        """Return the function that reads an image; made once in each process."""

    def listing(self, image_size: int) -> Listing:
        """Return a table of all images, sorted by `image_id`."""
        from harness.sources.listing import Listing  # loads pandas and pyarrow

        return Listing.of(self.find(image_size))

    def files(self) -> list[str]:
        """Return the absolute paths of local files and folders that every reader needs."""
        return []

    def searched(self) -> list[str]:
        """Return the absolute paths of the local folders in which every file matters."""
        return []
