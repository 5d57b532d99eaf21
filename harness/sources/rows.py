"""The rows in which a source describes its images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """One image of a source."""

    image_id: str
    """Unique in its source, UTF-8."""
    location: bytes
    """The argument of the source's reader."""
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
