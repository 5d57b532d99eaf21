"""Labelled image sets of `torchvision.datasets`, on disk or downloaded by torchvision."""

import difflib
import hashlib
import inspect
import io
import json
import os
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from featgan.errors import UserError, first_line
from featgan.images.decode import BadImage, decode, turn
from harness.sources.base import Found, Place, Read, Row, Source
from harness.sources.builtin import encoded
from harness.sources.folder import local, readable
from harness.sources.folder import read as read_file


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

    def find(self, image_size: int) -> Found:
        """Find all images; UserError if the set is unknown, missing or not one of images."""
        folder = os.path.abspath(os.path.expanduser(self.path))
        if self.download:
            _open(json.dumps([self.set, folder, self.options | {"download": True}]))
        key = json.dumps([self.set, folder, self.options])
        data, stamp = _open(key), f"{key} {_state(folder)}"
        names = getattr(data, "bin_classes" if _is_binary(data) else "classes", None)
        return Found(
            Row(f"{index:07d}", f"{index} {key}".encode(), _name(label, names), stamp)
            for index, label in enumerate(_labels(data))
        )

    def reader(self) -> Read:
        """Return the function that takes an image of the set and encodes its pixels."""
        return read

    def files(self) -> list[str]:
        """Return the folder, unless a download may still have to make it."""
        return [] if self.download else local(self.path)

    def searched(self) -> list[str]:
        """Return the folder: a new file of any kind has the set listed and counted again."""
        return local(self.path)


def _name(label: int, names: Any) -> str | None:
    """Return a class's name, or its number; None for an image without a class (STL10)."""
    if label < 0:
        return None
    return str(label) if names is None else readable(os.fsencode(str(names[label])))


def read(location: bytes) -> bytes:
    """Return the image at `index set`, upright and re-encoded; BadImage if it cannot be decoded."""
    index, _, key = location.decode().partition(" ")
    image = _image(_open(key), int(index))
    turn(image)
    if image.mode not in ("RGBA", "LA", "PA", "P", "I;16", "I", "F"):
        return encoded(image)
    file = io.BytesIO()  # keeps transparency and all bits for `decode`
    image.save(file, "TIFF" if image.mode in ("I", "F") else "PNG")
    return file.getvalue()


def _image(data: Any, index: int) -> Image.Image:
    try:
        image = data[index][0]
    except (BadImage, MemoryError):
        raise
    # Pillow's decoders raise exceptions of any kind; only the system's have a number
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f"damaged image: {_reason(error)}") from error
    if not isinstance(image, Image.Image):
        raise BadImage("not an image")
    return image


def _state(folder: str) -> str:
    """Return a hash of names, sizes and times of all files below a folder.

    All of them, since a set does not say which it reads.
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
    """Return the class numbers, without opening every image if the set knows them."""
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
    """Return True for Oxford's pets labelled as cats and dogs."""
    return getattr(data, "_target_types", None) == ["binary-category"]


def _label(data: Any, index: int) -> int:
    """Return the label of an image that must be opened for it."""
    try:
        return int(data[index][1])
    # Pillow's decoders raise exceptions of any kind
    except Exception as error:
        raise UserError(
            f"data: torchvision's {type(data).__name__}: image {index} must be opened for its "
            f"label, and cannot be: {_reason(error)}; fix it or remove it"
        ) from error


def _reason(error: Exception) -> str:
    """Return a decoder's error in one line."""
    return first_line(error)


def _number(label: Any) -> int:
    """Return a class number; QMNIST has several numbers for an image, first its class."""
    return int(label[0]) if getattr(label, "ndim", 0) else int(label)


@lru_cache(maxsize=2)
def _open(key: str) -> Any:
    """Return the set of (class, folder, options), checked to hold labelled images.

    Kept, since Ray unpickles a reader for each of its tasks and a set takes seconds to open.
    """
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
    # each class reports missing files and unknown arguments in its own way
    except Exception as error:
        what = f"data: torchvision's {name} in {folder}"
        raise UserError(f"{what}: {first_line(error)}") from error
    if not isinstance(image, Image.Image) or not isinstance(label, int):
        raise UserError(f"data: torchvision's {name} is not a set of images with one label each")
    return data


def _load(path: str) -> Image.Image:
    """Load a file as every other source does, in place of torchvision's loader."""
    return decode(read_file(os.fsencode(path)))


def _first(data: Any) -> Any:
    """Return the first readable pair of image and label, which shows what the set holds."""
    for index in range(len(data)):
        # bad images are reported when counted; decoders raise exceptions of any kind
        with suppress(Exception):
            return data[index]
    return data[0]
