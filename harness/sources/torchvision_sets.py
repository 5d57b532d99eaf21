"""Labelled image sets of `torchvision.datasets`, already on disk or downloaded by torchvision."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import io
import json
import os
from contextlib import suppress
from functools import lru_cache
from typing import Any

from PIL import Image

from featgan.errors import UserError
from featgan.images.decode import BadImage, decode, turn
from featgan.regular_file import open_regular
from harness.sources.builtin import encoded
from harness.sources.folder import Row, readable
from harness.storage.redaction import one_line


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
    names = getattr(data, "bin_classes" if _is_binary(data) else "classes", None)
    stamp = f"{key} {_state(folder)}"
    rows: list[Row] = []
    for index, label in enumerate(labels):
        rows.append(Row(f"{index:07d}", f"{index} {key}".encode(), _name(label, names), stamp))
    return rows


def _name(label: int, names: Any) -> str | None:
    """The class's name, or its number; None of an image that belongs to none (STL10)."""
    if label < 0:
        return None
    return str(label) if names is None else readable(os.fsencode(str(names[label])))


def read(location: bytes) -> bytes:
    """The image at `index set`, upright and encoded anew; BadImage where it cannot be decoded."""
    index, _, key = location.decode().partition(" ")
    image = _image(_open(key), int(index))
    turn(image)
    if image.mode not in ("RGBA", "LA", "PA", "P", "I;16", "I", "F"):
        return encoded(image)
    file = io.BytesIO()  # with its transparency, or all of its bits: `decode` knows what to do
    image.save(file, "TIFF" if image.mode in ("I", "F") else "PNG")
    return file.getvalue()


def _image(data: Any, index: int) -> Image.Image:
    try:
        image = data[index][0]
    except (BadImage, MemoryError):
        raise
    # Pillow's decoders raise whatever they stumble over; with a number, the system does
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f"damaged image: {_reason(error)}") from error
    if not isinstance(image, Image.Image):
        raise BadImage("not an image")
    return image


def _state(folder: str) -> str:
    """Digest of names, sizes and times of all files below a folder.

    Which of them a set reads is its own business.
    """
    state = hashlib.sha256()
    for root, inner, files in os.walk(folder):
        inner.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            status = os.stat(path, follow_symlinks=os.path.exists(path))
            seen = f"{os.path.relpath(path, folder)} {status.st_size} {status.st_mtime_ns}\n"
            state.update(os.fsencode(seen))
    return state.hexdigest()


def _labels(data: Any) -> list[int]:
    """Class numbers; without opening every image where the set knows them."""
    if _is_binary(data):
        return list(data._bin_labels)
    for attribute in ("targets", "labels", "_labels", "y"):
        if (labels := getattr(data, attribute, None)) is not None:
            return [_number(label) for label in labels]
    if samples := getattr(data, "_samples", None):
        return [_number(label) for _, label in samples]
    if type(data).__name__ == "INaturalist" and data.target_type == ["full"]:
        return [_number(label) for label, _ in data.index]
    return [_label(data, index) for index in range(len(data))]


def _is_binary(data: Any) -> bool:
    """Whether Oxford's pets are told as cats and dogs."""
    return getattr(data, "_target_types", None) == ["binary-category"]


def _label(data: Any, index: int) -> int:
    """The label of an image that must be opened for it."""
    try:
        return int(data[index][1])
    # Pillow's decoders raise whatever they stumble over
    except Exception as error:
        raise UserError(
            f"data: torchvision's {type(data).__name__}: image {index} must be opened for its "
            f"label, and cannot be: {_reason(error)}; mend it or remove it"
        ) from error


def _reason(error: Exception) -> str:
    """What a decoder stumbled over, in one line."""
    return one_line(str(error), 200) or type(error).__name__


def _number(label: Any) -> int:
    """A class number; the first of what QMNIST tells about an image is its class."""
    return int(label[0]) if getattr(label, "ndim", 0) else int(label)


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
    kind = getattr(datasets, name)
    if "loader" in inspect.signature(kind).parameters or issubclass(kind, datasets.DatasetFolder):
        options = options | {"loader": _load}
    try:
        data = kind(folder, **options)
        image, label = _first(data)
    # each class has its own way of saying that it finds no files, or takes no such argument
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"data: torchvision's {name} in {folder}: {reason}") from error
    if not isinstance(image, Image.Image) or not isinstance(label, int):
        raise UserError(f"data: torchvision's {name} is no set of images with one label each")
    return data


def _load(path: str) -> Image.Image:
    """A file as every other source reads it, in place of torchvision's loader."""
    with open_regular(path) as file:
        return decode(file.read())


def _first(data: Any) -> Any:
    """The first pair that can be had of an image and its label; what a set holds shows there."""
    for index in range(len(data)):
        # a bad image is told when it is counted; Pillow's decoders raise what they stumble over
        with suppress(Exception):
            return data[index]
    return data[0]
