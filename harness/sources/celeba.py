"""CelebA by its attributes.

Reads `list_attr_celeba.txt` itself and needs only this file and the images: torchvision's class
needs four more files and refuses copies whose line ends are not CRLF.
"""

import difflib
import io
import os
from collections import Counter
from typing import Literal

import numpy as np
from pydantic import Field

from featgan.errors import UserError, first_line
from harness.sources.base import Found, Place, Read, Row, Source
from harness.sources.folder import absolute, local, read, rows_of

ATTRIBUTES = "list_attr_celeba.txt"
IMAGES = "img_align_celeba"


class CelebASource(Source):
    """CelebA as it is published: `img_align_celeba/` next to `list_attr_celeba.txt`."""

    source: Literal["celeba"]
    path: Place
    """The folder that holds both."""
    attributes: dict[str, bool] = Field(default_factory=dict)
    """Which images: `{Male: true, Smiling: true}` keeps those with both, `false` those without."""
    limit: int | None = Field(default=None, ge=1)
    """Most images, drawn by `seed`."""
    seed: int = Field(default=0, ge=0)
    """Draws the images that `limit` keeps."""

    def find(self, image_size: int) -> Found:
        """Find the images whose attributes match."""
        rows, matched = list_images(self.path, self.attributes, self.limit, self.seed)
        return Found(rows, matched)

    def reader(self) -> Read:
        """Return the function that reads a local or remote file."""
        return read

    def files(self) -> list[str]:
        """Return the folder, unless it is in a bucket."""
        return local(self.path)


def list_images(
    path: str, attributes: dict[str, bool], limit: int | None, seed: int
) -> tuple[list[Row], int]:
    """Return the images that have (true) or lack (false) attributes, and how many match.

    With `limit`, at most that many of them, drawn by `seed`.
    """
    path = absolute(path).rstrip("/")
    names, files, table = _read_attributes(path)
    keep = np.ones(len(files), bool)
    for name, wanted in attributes.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1) or names[:1]
            raise UserError(f"data: CelebA has no attribute {name}; did you mean {near[0]}?")
        keep &= (table[:, names.index(name)] == 1) == wanted
    matched = np.flatnonzero(keep)
    if not len(matched):
        raise UserError(f"data: no image in {path}/{ATTRIBUTES} has the attributes {attributes}")
    chosen = matched
    if limit is not None and limit < len(matched):
        chosen = np.sort(np.random.default_rng(seed).choice(matched, limit, replace=False))
    folder = f"{path}/{IMAGES}"
    if "://" not in folder and not os.path.isdir(folder):
        raise UserError(f"data: there is no folder {folder}, CelebA's images")
    return rows_of(folder, [files[row] for row in chosen]), len(matched)


def _read_attributes(path: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return attribute names, file names, and 1 or -1 for each pair: int8 [files, names]."""
    file = f"{path}/{ATTRIBUTES}"
    lines = io.StringIO(_text(file))
    expected, names = next(lines, "").strip(), next(lines, "").split()
    files, table = list[str](), bytearray()
    for name, *values in filter(None, map(str.split, lines)):
        if len(values) != len(names):
            raise _damaged(file, "expected two header lines, then one line for each file")
        if name in (".", "..") or "/" in name or "\0" in name:
            raise _damaged(file, f"{name!r} is not the name of a file in {IMAGES}/")
        if odd := set(values) - _VALUES.keys():
            raise _damaged(file, f"{name} has the value {min(odd)!r}, which is neither 1 nor -1")
        files.append(name)
        table.extend(map(_VALUES.__getitem__, values))
    if not files or not names:
        raise _damaged(file, "expected two header lines, then one line for each file")
    if expected != str(len(files)):
        raise UserError(f"data: {file} is cut short: {len(files)} images of {expected}")
    counted = Counter(names) + Counter(files)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise _damaged(file, f"it names {twice[0]!r} twice")
    return names, files, np.frombuffer(table, np.int8).reshape(len(files), -1)


_VALUES = {"1": 1, "-1": 255}
"""Bytes that are int8 1 and -1."""


def _text(file: str) -> str:
    try:
        return read(file.encode()).decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"data: {file} cannot be read ({first_line(error.strerror or str(error))}); CelebA's "
            f"folder holds {IMAGES}/ and {ATTRIBUTES}"
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(file, "it is not UTF-8 text") from error
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        raise UserError(f"data: {file} cannot be read: {first_line(error)}") from error


def _damaged(file: str, what: str) -> UserError:
    return UserError(f"data: {file} is damaged: {what}")
