"""Labelled image sets of `torchvision.datasets`, already on disk or downloaded by torchvision."""

from __future__ import annotations

import difflib
import json
import os
from functools import lru_cache
from typing import Any

from PIL import Image

from featgan.errors import UserError
from harness.builtin import encoded
from harness.folders import Row


def list_images(
    name: str, path: str, options: dict[str, str | int | bool], download: bool
) -> list[Row]:
    """A row for each image; UserError where the set is unknown, missing or not one of images."""
    folder = os.path.abspath(os.path.expanduser(path))
    if download:
        _open(json.dumps([name, folder, options | {"download": True}]))
    key = json.dumps([name, folder, options])
    data = _open(key)
    labels = _labels(data)
    names = getattr(data, "classes", None)
    rows: list[Row] = []
    for index, label in enumerate(labels):
        text = str(names[label]) if names is not None else str(label)
        rows.append((f"{index:07d}", f"{index} {key}".encode(), text, key))
    return rows


def read(location: bytes) -> bytes:
    """The image at `index set`, as a PPM or PGM file."""
    index, _, key = location.decode().partition(" ")
    return encoded(_open(key)[int(index)][0])


def _labels(data: Any) -> list[int]:
    """Class numbers; without opening every image where the set knows them."""
    for attribute in ("targets", "labels", "_labels"):
        if (labels := getattr(data, attribute, None)) is not None:
            return [int(label) for label in labels]
    return [int(label) for _, label in (data[index] for index in range(len(data)))]


@lru_cache(maxsize=2)
def _open(key: str) -> Any:
    """The set of (class, folder, options), checked to hold labelled images."""
    from torchvision import datasets  # takes seconds, and only this source needs it

    name, folder, options = json.loads(key)
    kinds = [kind for kind in dir(datasets) if isinstance(getattr(datasets, kind), type)]
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"data: torchvision.datasets has no {name}{hint}")
    try:
        data = getattr(datasets, name)(folder, **options)
        image, label = data[0]
    # each class has its own way of saying that it finds no files, or takes no such argument
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"data: torchvision's {name} in {folder}: {reason}") from error
    if not isinstance(image, Image.Image) or not isinstance(label, int):
        raise UserError(f"data: torchvision's {name} is no set of images with one label each")
    return data
