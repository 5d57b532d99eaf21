"""CelebA by its attributes: reads `list_attr_celeba.txt` itself and needs only it and the images.

torchvision's class wants four more files and refuses copies whose line ends are not CRLF.
"""

from __future__ import annotations

import difflib
import io
import os
from collections import Counter

import numpy as np

from featgan.errors import UserError
from harness.sources.folder import Row, absolute, check, read, rows_of
from harness.storage.redaction import one_line

ATTRIBUTES = "list_attr_celeba.txt"
IMAGES = "img_align_celeba"


def list_images(
    path: str, attributes: dict[str, bool], limit: int | None, seed: int
) -> tuple[list[Row], int]:
    """The images that have (true) and lack (false) these attributes, and how many those are.

    With `limit`, that many of them, drawn by `seed`; the order stays the file's.
    """
    path = absolute(path).rstrip("/")
    check(path)
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
    """The attributes' names, the images' files, and 1 or -1 for each of both: int8 [n, names]."""
    file = f"{path}/{ATTRIBUTES}"
    lines = io.StringIO(_text(file))
    told, names = next(lines, "").strip(), next(lines, "").split()
    files, table = list[str](), bytearray()
    for name, *values in filter(None, map(str.split, lines)):
        if len(values) != len(names):
            raise _damaged(file, "after two lines of header each line has a file")
        if name in (".", "..") or "/" in name or "\0" in name:
            raise _damaged(file, f"{name!r} is no name of a file in {IMAGES}/")
        if odd := set(values) - _VALUES.keys():
            raise _damaged(file, f"of {name} it tells {min(odd)!r}, neither 1 nor -1")
        files.append(name)
        table.extend(map(_VALUES.__getitem__, values))
    if not files or not names:
        raise _damaged(file, "after two lines of header each line has a file")
    if told != str(len(files)):
        raise UserError(f"data: {file} is cut short: {len(files)} images of {told}")
    if twice := [*_repeated(names), *_repeated(files)]:
        raise _damaged(file, f"it names {twice[0]!r} twice")
    return names, files, np.frombuffer(table, np.int8).reshape(len(files), -1)


_VALUES = {"1": 1, "-1": 255}
"""Their bytes."""


def _text(file: str) -> str:
    try:
        return read(file.encode()).decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"data: {file} cannot be read ({one_line(error.strerror or str(error))}); CelebA's "
            f"folder holds {IMAGES}/ and {ATTRIBUTES}"
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(file, "it is no text in UTF-8") from error
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        raise UserError(f"data: {file} cannot be read: {one_line(str(error))}") from error


def _damaged(file: str, what: str) -> UserError:
    return UserError(f"data: {file} is damaged: {what}")


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
