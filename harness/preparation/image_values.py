"""Values of a data set's images other than feature counts, computed once and kept in the store.

They are one Parquet file of `image_id` and `value` next to the feature table.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from pyarrow import csv, parquet

from featgan.digests import short_hash
from featgan.errors import UserError, first_line
from featgan.features.image_values import HELD_OUT, PIXEL_VALUES, VERSION, highest
from featgan.features.settings import (
    IMAGE_VALUES,
    NONE,
    OF_FEATURES,
    FeatureSettings,
    SelectSettings,
    ValueSettings,
)
from featgan.images.decode import resized
from featgan.user_code import resolve, source_digest, user_code_errors
from harness.cluster import connect
from harness.cluster.connect import Progress
from harness.counting.workers import counter, shared_weights
from harness.records.data_set import DataSet, dump_values, held_out, load_table, open_pack
from harness.storage.store import Store

PART_BYTES = 2**26
"""Bytes of pixels in one task."""
FEATURE_IMAGES = 256
"""Number of images in one task: 4 MiB of VGG16's features."""
LARGEST = 1e150
"""Largest absolute value: k-means adds up squares."""


@dataclass(frozen=True)
class ImageValues:
    """The values that `settings.by` names, of the images of a data set."""

    data: DataSet
    settings: ValueSettings
    features: FeatureSettings
    store: Store
    gpu: bool
    progress: Progress

    def make(self) -> str:
        """Return the store key of the values; compute them if missing.

        Raises UserError where a table lacks an image, a label has too few, or a function cannot be
        imported or returns anything but one finite number an image.
        """
        settings, by = self.settings, self.settings.by
        compute: Callable[[], np.ndarray]
        if by == "table":
            content = self._read_table()
            made_from: list[Any] = [settings.column, hashlib.sha256(content).hexdigest()]
            compute = partial(self._column, content)
        elif by == "random":
            made_from, compute = [settings.seed], self._at_random
        elif by in OF_FEATURES:
            features = self.features.model_dump(mode="json")
            labels = label_numbers(self.store, self.data, settings)
            of = {"features": features, "labels": digest(labels)}
            made_from = [of, settings.seed, settings.clusters]
            compute = partial(self._of_features, labels)
        else:
            made_from, compute = [source_digest(by)], self._of_pixels
        # images that become readable change the digest
        name = short_hash(self.data.digest, VERSION, by, *made_from)
        key = f"{self.data.key}/scores/{by.replace(':', '.')}-{name}.parquet"
        return self.store.once(key, lambda: self._file(key, compute()))

    def _file(self, key: str, values: np.ndarray) -> bytes:
        """Return the file of values [n]; UserError if one is too large, or not a number."""
        ids = load_table(self.store, self.data.key)["image_id"]
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
        if len(bad):
            raise UserError(
                f"{self.settings.section}.by: {self.settings.by} gives {values[bad[0]]} for "
                f"{ids[bad[0]]!r} of data.{self.data.name}, and {len(bad)} such values in all; "
                f"each image needs a number within {LARGEST:g} of 0"
            )
        return dump_values(key, ids, values)

    def _at_random(self) -> np.ndarray:
        return np.random.default_rng(self.settings.seed).random(self.data.images)

    def _of_pixels(self) -> np.ndarray:
        """Return a function's values [n] of all images, from tasks on the whole cluster."""
        connect.await_room({"CPU": 1}, self.progress)
        key = self.data.key
        image_bytes = 3 * open_pack(self.store, key).size ** 2
        parts = self._parts(max(1, PART_BYTES // image_bytes))
        tasks = [_values.remote(self.store, key, self.settings, part) for part in parts]
        return np.concatenate(self._results(tasks))

    def _of_features(self, labels: np.ndarray) -> np.ndarray:
        """Return values [n] in the space of a network's features; these stay in Ray's memory.

        Centrality is the distance of an image's features to their mean. Images that are held out
        change no other's value.
        """
        store, data, gpu = self.store, self.data, self.gpu
        kind = "GPU" if gpu else "CPU"
        connect.await_room({kind: 1}, self.progress)
        parts, weights = self._parts(FEATURE_IMAGES), shared_weights(self.features)
        amount = int(ray.cluster_resources().get(kind, 1))
        actor: Any = ray.remote(num_cpus=int(not gpu), num_gpus=int(gpu))(_Features)
        actors = [
            actor.remote(store, data.key, self.features, weights, gpu)
            for _ in range(min(max(amount, 1), len(parts)))
        ]
        found = [
            actors[number % len(actors)].of.remote(part, labels[part] != HELD_OUT)
            for number, part in enumerate(parts)
        ]
        sums = self._results([total for _, total in found])
        del actors  # ends them: the tasks need their processors
        if self.settings.by != "centrality":
            features = (part for part, _ in found)
            return ray.get(_within_labels.remote(self.settings, labels, *features))
        mean = ray.put(np.sum(sums, axis=0) / np.count_nonzero(labels != HELD_OUT))
        return np.concatenate(ray.get([_distances.remote(part, mean) for part, _ in found]))

    def _parts(self, length: int) -> list[range]:
        rows = range(self.data.images)
        return [rows[start : start + length] for start in rows[::length]]

    def _results(self, tasks: list[ray.ObjectRef]) -> list[np.ndarray]:
        """Return the results of the tasks in order, and report the progress."""
        results, total = list[np.ndarray](), self.data.images
        what = f"{self.data.name}: computing {self.settings.by}, to group the images by it"
        for task in tasks:
            self.progress(what, total * len(results) // len(tasks), total)
            results.append(ray.get(task))
        return results

    def _read_table(self) -> bytes:
        """Return the content of the file of `table`."""
        where = f"{self.settings.section}.table: {self.settings.table}"
        path = str(self.settings.table).removeprefix("file://")
        if "://" not in path and not Path(path).expanduser().is_file():
            raise UserError(f"{where}: not a file; give a CSV or Parquet file")
        try:
            with fsspec.open(path, "rb") as file:
                return bytes(file.read())
        except Exception as error:  # a bucket's client raises errors of its own
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{where} cannot be read ({reason})") from error

    def _column(self, content: bytes) -> np.ndarray:
        """Return the numbers of the table's column in the order of the feature table."""
        where = f"{self.settings.section}.table: {self.settings.table}"
        file, wanted = io.BytesIO(content), str(self.settings.column)
        try:
            if str(self.settings.table).endswith(".parquet"):
                table = parquet.read_table(file)
            else:
                as_text = csv.ConvertOptions(column_types={"image_id": pa.string()})
                lines = csv.ParseOptions(newlines_in_values=True)
                table = csv.read_csv(file, parse_options=lines, convert_options=as_text)
        except Exception as error:  # Arrow raises its own errors and Python's
            raise UserError(f"{where} is not CSV or Parquet ({first_line(error)})") from error
        for column in ("image_id", wanted):
            if (number := table.column_names.count(column)) != 1:
                names = ", ".join(table.column_names[:20])
                raise UserError(f"{where} has {number} columns {column!r}, not one; it has {names}")
        try:
            names = table["image_id"].cast("string").to_pandas()
            numbers = table[wanted].cast("float64", safe=False)
        except pa.ArrowException as error:
            what = f"column {wanted!r} does not hold numbers only, or image_id no texts"
            raise UserError(f"{where}: {what} ({first_line(error)})") from error
        values = pd.Series(numbers.to_numpy(), names)
        ids = load_table(self.store, self.data.key)["image_id"]
        rows = ids.map(values.index.value_counts()).fillna(0).astype(int)
        wrong = np.flatnonzero(rows != 1)
        if len(wrong):
            raise UserError(
                f"{where} needs one row for each image, but {len(wrong)} of the {len(ids)} "
                f"images of data.{self.data.name} have another number, first {ids[wrong[0]]!r} "
                f"with {rows[wrong[0]]}"
            )
        return values[ids].to_numpy()


def select(data: DataSet, settings: SelectSettings, values: np.ndarray, store: Store) -> str:
    """Return the store key of a file of 1 for each image that is kept, and 0 for the others.

    None that is held out is kept; without `settings.by`, all others are.
    """
    labels = label_numbers(store, data, settings)
    high = values if settings.end == "high" else -values.astype(np.float64)
    allowed = labels != HELD_OUT
    kept = allowed.astype(np.float64)
    if settings.by != NONE:
        kept[allowed] = highest(high[allowed], labels[allowed], settings.keep)
    name = short_hash(data.digest, digest(kept))
    key = f"{data.key}/selected/{settings.by.replace(':', '.')}-{name}.parquet"
    ids = load_table(store, data.key)["image_id"]
    return store.once(key, lambda: dump_values(key, ids, kept))


def label_numbers(store: Store, data: DataSet, settings: ValueSettings) -> np.ndarray:
    """Return the number [n] of each image's label, -1 without one; `HELD_OUT` where it is that.

    0 for all others where the settings ignore labels.
    """
    numbers = pd.factorize(load_table(store, data.key)["label"], sort=True)[0]
    if isinstance(settings, SelectSettings) and settings.within == "all":
        numbers[:] = 0
    numbers[held_out(store, data)] = HELD_OUT
    return numbers


def label(settings: ValueSettings, features: FeatureSettings) -> str:
    """Return a description of the values and their unit."""
    if settings.by == "feature_count":
        return f"{IMAGE_VALUES[settings.by]} (positive outputs of {features.layer_label})"
    if settings.by == "table":
        return str(settings.column)
    return IMAGE_VALUES.get(settings.by, settings.by)


def digest(values: np.ndarray) -> str:
    """Return the hash of values that is a part of the signature of runs."""
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:12]


@ray.remote(num_cpus=1)
def _values(store: Store, key: str, settings: ValueSettings, part: range) -> np.ndarray:
    images, by = open_pack(store, key).rows(np.array(part)), settings.by
    with user_code_errors(by):
        values = np.asarray(resolve(by, PIXEL_VALUES)(images))
    if values.shape != (len(images),) or values.dtype.kind not in "biuf":
        raise UserError(
            f"{settings.section}.by: {by} returned {values.dtype} {list(values.shape)} for "
            f"{len(images)} images; it must return one number an image"
        )
    return values.astype(np.float64)


class _Features:
    """One process with the network; reads the pack's images at the size of its input."""

    def __init__(
        self,
        store: Store,
        key: str,
        settings: FeatureSettings,
        weights: list[ray.ObjectRef],
        gpu: bool,
    ) -> None:
        torch.set_num_threads(1)
        self._pack = open_pack(store, key)
        self._counter = counter(settings, weights, gpu)

    @ray.method(num_returns=2)
    def of(self, part: range, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features float32 [len(part), d], and float64 [d] their sum over what `counts`."""
        images = resized(self._pack.rows(np.array(part)), self._counter.input_size)
        features = self._counter.features(images)
        return features, features[counts].sum(axis=0, dtype=np.float64)


@ray.remote(num_cpus=1)
def _distances(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features - mean, axis=1)


@ray.remote(num_cpus=1)
def _within_labels(
    settings: ValueSettings, labels: np.ndarray, *features: np.ndarray
) -> np.ndarray:
    from featgan.features.selection import values_by_label  # scikit-learn takes a second to load

    return values_by_label(np.concatenate(features), labels, settings)
