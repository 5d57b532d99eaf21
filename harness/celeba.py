"""CelebA by its attributes: reads `list_attr_celeba.txt` itself and needs only it and the images.

torchvision's class wants four more files and refuses copies whose line ends are not CRLF.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter

import numpy as np

from featgan.errors import UserError
from harness.folders import Row, absolute, check, read, rows_of
from harness.redaction import one_line

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
    names, table = _read_attributes(path)
    keep = np.ones(len(table), bool)
    for name, wanted in attributes.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1) or names[:1]
            raise UserError(f"data: CelebA has no attribute {name}; did you mean {near[0]}?")
        column = names.index(name)
        keep &= np.array([values[column] == "1" for _, values in table]) == wanted
    matched = np.flatnonzero(keep)
    if not len(matched):
        raise UserError(f"data: no image in {path}/{ATTRIBUTES} has the attributes {attributes}")
    chosen = matched
    if limit is not None and limit < len(matched):
        chosen = np.sort(np.random.default_rng(seed).choice(matched, limit, replace=False))
    folder = f"{path}/{IMAGES}"
    if "://" not in folder and not os.path.isdir(folder):
        raise UserError(f"data: there is no folder {folder}, CelebA's images")
    return rows_of(folder, [table[row][0] for row in chosen]), len(matched)


def _read_attributes(path: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The attributes' names, and for each image its file and values "1" or "-1"."""
    file = f"{path}/{ATTRIBUTES}"
    try:
        lines = read(file.encode()).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"data: {file} cannot be read ({one_line(error.strerror or str(error))}); CelebA's "
            f"folder holds {IMAGES}/ and {ATTRIBUTES}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"data: {file} is damaged: it is no text in UTF-8") from error
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        raise UserError(f"data: {file} cannot be read: {one_line(str(error))}") from error
    names = lines[1].split() if len(lines) > 2 else []
    table = [(file, values) for file, *values in map(str.split, filter(str.strip, lines[2:]))]
    if not names or any(len(values) != len(names) for _, values in table):
        raise UserError(f"data: {file} is damaged: after two lines of header each line has a file")
    if lines[0].strip() != str(len(table)):
        raise UserError(f"data: {file} is cut short: {len(table)} images of {lines[0].strip()}")
    if twice := [*_repeated(names), *_repeated([name for name, _ in table])]:
        raise UserError(f"data: {file} is damaged: it names {twice[0]!r} twice")
    for name, values in table:
        if name in (".", "..") or "/" in name or "\0" in name:
            raise UserError(f"data: {file} is damaged: {name!r} is no name of a file in {IMAGES}/")
        if odd := set(values) - {"1", "-1"}:
            raise UserError(
                f"data: {file} is damaged: of {name} it tells {min(odd)!r}, neither 1 nor -1"
            )
    return names, table


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
