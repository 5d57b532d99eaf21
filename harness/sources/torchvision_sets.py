"""Labelled image sets of `torchvision.datasets`, on disk or downloaded by torchvision."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from featgan.digests import short_hash
from featgan.errors import UserError, did_you_mean, first_line
from harness.sources import folder as folders
from harness.sources.base import Found, LimitedSource, Place, Row
from harness.sources.builtin import encoded

SPLITS = {"train", "val", "valid", "validation", "test"}
"""Folders that hold folders of classes."""


class TorchvisionSource(LimitedSource):
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
        folder, skipped = folders.absolute(self.path), Counter[str]()
        if self.set == "ImageFolder":
            return Found(self.draw(_class_folders(folder, skipped)), skipped=skipped)
        if os.path.exists(folder) or not self.download:
            folders.check_folder(folder)
        from torchvision import datasets  # takes seconds, and only this source needs it

        if self.set not in datasets.__all__:
            hint = did_you_mean(self.set, datasets.__all__)
            raise UserError(f"data: torchvision.datasets has no {self.set}{hint}")
        key = json.dumps([self.set, folder, self.options])
        try:
            if {"target_type", "target_types"} & self.options.keys():
                raise ValueError("the label of an image is its class; remove target_type(s)")
            if self.download:
                _open(json.dumps([self.set, folder, self.options | {"download": True}]))
            data = _open(key)
            labels = _labels(data)
        # each class reports missing files and unknown arguments in its own way
        except Exception as error:
            why = first_line(error).replace("download=True", "download: true")
            raise UserError(f"data: torchvision's {self.set} in {folder}: {why}") from error
        return Found(self.draw(_rows(data, labels, folder, key, skipped)), skipped=skipped)

    def read(self, location: bytes) -> bytes:
        """Return the bytes of a file, or the pixels of the image at `index set`."""
        if location.startswith(b"/"):
            return folders.read(location)
        index, _, key = location.decode().partition(" ")
        return encoded(_open(key)[int(index)][0])

    def files(self) -> list[str]:
        """Return the folder, unless a download may still have to make it."""
        return [] if self.download else folders.local(self.path)


def _class_folders(folder: str, skipped: Counter[str]) -> Iterator[Row]:
    """Yield the images of an ImageFolder: its upper folders are the classes."""
    names, found = folders.synset_names(folder), set[str]()
    for row in folders.find_images(folder, label=False, skipped=skipped):
        label, inside, _ = row.image_id.partition("/")
        if inside:
            found.add(label)
            yield row._replace(label=names.get(label, label))
        else:
            skipped["without a class"] += 1
    if found <= SPLITS:
        held = ", ".join(sorted(found)) or "images"
        raise UserError(
            f"data: {folder} holds {held} where ImageFolder has a folder of each class; let `path` "
            "be the folder that holds those"
        )


def _rows(
    data: Any, labels: list[int], folder: str, key: str, skipped: Counter[str]
) -> Iterator[Row]:
    """Yield the images with the names of their classes; -1 is that of none (STL10)."""
    names: Any = getattr(data, "classes", None)
    if synsets := getattr(data, "wnids", None):  # two classes of ImageNet are cranes
        names = [f"{synset} {name[0]}" for synset, name in zip(synsets, names, strict=True)]
    files = _files(data)
    # a set without files of images does not say which files it reads
    stamp = "" if files else f"{key} {_state(folder)}"
    for index, number in enumerate(labels):
        label = None if number < 0 else str(number if names is None else names[number])
        row = Row(f"{index:07d}", f"{index:07d} {key}".encode(), label, stamp)
        if files:
            place = os.fsencode(files[index])
            image_id = folders.readable(os.path.relpath(place, os.fsencode(folder)))
            if folders.is_hidden(image_id):
                skipped["hidden"] += 1
                continue
            row = Row(image_id, place, label, *folders.state_of(place))
        yield row


def _files(data: Any) -> list[Any]:
    """Return the paths of a set's images; none where it keeps them in another way."""
    for name in ("samples", "_samples", "imgs", "_image_files", "_images", "data"):
        items = getattr(data, name, None)
        if items is not None and len(items):
            paths = [item[0] if isinstance(item, tuple) else item for item in items]
            if isinstance(paths[0], str | os.PathLike):
                return paths
    return []


def _labels(data: Any) -> list[int]:
    """Return the class numbers, without opening every image if the set knows them."""
    attributes = (getattr(data, name, None) for name in ("targets", "labels", "_labels", "y"))
    labels = next((found for found in attributes if found is not None), None)
    if labels is None:
        pairs = getattr(data, "_samples", None) or (data[index] for index in range(len(data)))
        labels = [label for _, label in pairs]
    # QMNIST has several numbers for an image, first its class
    return np.asarray(labels, int).reshape(len(labels), -1)[:, 0].tolist()


def _state(folder: str) -> str:
    """Return a hash of names, sizes and times of all files below a folder."""
    places = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return short_hash(sorted((place, *folders.state_of(os.fsencode(place))) for place in places))


@lru_cache(maxsize=2)
def _open(key: str) -> Any:
    """Return the set of (class, folder, options).

    Kept, since Ray unpickles a source for each of its tasks and a set takes seconds to open.
    """
    from torchvision import datasets

    name, folder, options = json.loads(key)
    return getattr(datasets, name)(folder, **options)
