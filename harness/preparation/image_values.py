"""Values of a data set's images other than feature counts, computed once and kept in the store.

They are one Parquet file of `image_id` and `value` next to the feature table.
"""

import hashlib
import io
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
from featgan.features.image_values import PIXEL_VALUES, VERSION, highest
from featgan.features.settings import (
    IMAGE_VALUES,
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
from harness.records.data_set import DataSet, load_table, open_pack
from harness.records.image_values import dump_values
from harness.storage.store import Store

PART_BYTES = 2**26
"""Bytes of pixels in one task."""
FEATURE_IMAGES = 256
"""Number of images in one task: 4 MiB of VGG16's features."""
LARGEST = 1e150
"""Largest absolute value: k-means adds up squares."""


def make(
    data: DataSet,
    settings: ValueSettings,
    features: FeatureSettings,
    store: Store,
    gpu: bool,
    progress: Progress,
) -> str:
    """Return the store key of the values that `settings.by` names; compute them if missing.

    Raises UserError where a table lacks an image, a label has too few, or a function cannot be
    imported or returns anything but one finite number an image.
    """
    by = settings.by
    made_from: list[object] = [VERSION, by]
    if by == "table":
        made_from += [settings.column, hashlib.sha256(_read_table(settings)).hexdigest()]
    elif by == "random":
        made_from.append(settings.seed)
    elif by in OF_FEATURES:
        of = {
            "features": features.model_dump(mode="json"),
            "labels": digest(label_numbers(store, data)),
        }
        made_from += [of, settings.seed, settings.clusters]
    else:
        made_from.append(source_digest(by))

    def compute() -> bytes:
        ids = load_table(store, data.key)["image_id"]
        if by not in ("table", "random"):
            kind = "GPU" if gpu and by in OF_FEATURES else "CPU"
            connect.await_room({kind: 1}, progress)
        if by == "table":
            values = _column(settings, data, ids)
        elif by == "random":
            values = np.random.default_rng(settings.seed).random(len(ids))
        elif by in OF_FEATURES:
            values = _of_features(data, settings, features, store, gpu, progress)
        else:
            values = _of_pixels(data, settings, store, progress)
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
        if len(bad):
            raise UserError(
                f"{settings.section}.by: {by} gives {values[bad[0]]} for {ids[bad[0]]!r} of "
                f"data.{data.name}, and {len(bad)} such values in all; each image needs a "
                f"number within {LARGEST:g} of 0"
            )
        return dump_values(key, ids, values)

    name = short_hash(data.digest, *made_from)  # images that become readable change the digest
    key = f"{data.key}/scores/{by.replace(':', '.')}-{name}.parquet"
    return store.once(key, compute)


def select(data: DataSet, settings: SelectSettings, values: np.ndarray, store: Store) -> str:
    """Return the store key of a file of 1 for each image that is kept, and 0 for the others."""
    labels = label_numbers(store, data) if settings.within == "label" else np.zeros(len(values))
    high = values if settings.end == "high" else -values.astype(np.float64)
    kept = highest(high, labels, settings.keep).astype(np.float64)
    name = short_hash(data.digest, digest(kept))
    key = f"{data.key}/selected/{settings.by.replace(':', '.')}-{name}.parquet"
    ids = load_table(store, data.key)["image_id"]
    return store.once(key, lambda: dump_values(key, ids, kept))


def label_numbers(store: Store, data: DataSet) -> np.ndarray:
    """Return the number [n] of each image's label, -1 without one."""
    return pd.factorize(load_table(store, data.key)["label"], sort=True)[0]


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


def _of_pixels(
    data: DataSet, settings: ValueSettings, store: Store, progress: Progress
) -> np.ndarray:
    """Return a function's values [n] of all images, from tasks on the whole cluster."""
    image_bytes = 3 * open_pack(store, data.key).size ** 2
    parts = _parts(data, max(1, PART_BYTES // image_bytes))
    tasks = [_values.remote(store, data.key, settings, part) for part in parts]
    return np.concatenate(_results(tasks, data, settings.by, progress))


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


def _of_features(
    data: DataSet,
    settings: ValueSettings,
    features: FeatureSettings,
    store: Store,
    gpu: bool,
    progress: Progress,
) -> np.ndarray:
    """Return values [n] in the space of a network's features; these stay in Ray's memory.

    Centrality is the distance of an image's features to their mean.
    """
    parts, weights = _parts(data, FEATURE_IMAGES), shared_weights(features)
    amount = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
    actor: Any = ray.remote(num_cpus=int(not gpu), num_gpus=int(gpu))(_Features)
    actors = [
        actor.remote(store, data.key, features, weights, gpu)
        for _ in range(min(max(amount, 1), len(parts)))
    ]
    found = [actors[number % len(actors)].of.remote(part) for number, part in enumerate(parts)]
    sums = _results([total for _, total in found], data, settings.by, progress)
    del actors  # ends them: the tasks need their processors
    if settings.by != "centrality":
        labels = label_numbers(store, data)
        return ray.get(_within_labels.remote(settings, labels, *(part for part, _ in found)))
    mean = ray.put(np.sum(sums, axis=0) / data.images)
    return np.concatenate(ray.get([_distances.remote(part, mean) for part, _ in found]))


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
    def of(self, part: range) -> tuple[np.ndarray, np.ndarray]:
        """Return features float32 [len(part), d], and their sum float64 [d]."""
        images = resized(self._pack.rows(np.array(part)), self._counter.input_size)
        features = self._counter.features(images)
        return features, features.sum(axis=0, dtype=np.float64)


@ray.remote(num_cpus=1)
def _distances(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features - mean, axis=1)


@ray.remote(num_cpus=1)
def _within_labels(
    settings: ValueSettings, labels: np.ndarray, *features: np.ndarray
) -> np.ndarray:
    from featgan.features.selection import values_by_label  # scikit-learn takes a second to load

    return values_by_label(np.concatenate(features), labels, settings)


def _parts(data: DataSet, length: int) -> list[range]:
    rows = range(data.images)
    return [rows[start : start + length] for start in rows[::length]]


def _results(
    tasks: list[ray.ObjectRef], data: DataSet, by: str, progress: Progress
) -> list[np.ndarray]:
    """Return the results of the tasks in order, and report the progress."""
    results: list[np.ndarray] = []
    what = f"{data.name}: computing {by}, to group the images by it"
    for task in tasks:
        progress(what, data.images * len(results) // len(tasks), data.images)
        results.append(ray.get(task))
    return results


def _read_table(settings: ValueSettings) -> bytes:
    """Return the content of the file of `table`."""
    where = f"{settings.section}.table: {settings.table}"
    path = str(settings.table).removeprefix("file://")
    if "://" not in path and not Path(path).expanduser().is_file():
        raise UserError(f"{where}: not a file; give a CSV or Parquet file")
    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # a bucket's client raises errors of its own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{where} cannot be read ({reason})") from error


def _column(settings: ValueSettings, data: DataSet, ids: pd.Series) -> np.ndarray:
    """Return the numbers of the table's column in the order of `ids`."""
    file = io.BytesIO(_read_table(settings))
    where = f"{settings.section}.table: {settings.table}"
    try:
        if str(settings.table).endswith(".parquet"):
            table = parquet.read_table(file)
        else:
            as_text = csv.ConvertOptions(column_types={"image_id": pa.string()})
            lines = csv.ParseOptions(newlines_in_values=True)
            table = csv.read_csv(file, parse_options=lines, convert_options=as_text)
    except Exception as error:  # Arrow raises its own errors and Python's
        raise UserError(f"{where} is not CSV or Parquet ({first_line(error)})") from error
    for column in ("image_id", settings.column):
        if (number := table.column_names.count(column)) != 1:
            names = ", ".join(table.column_names[:20])
            raise UserError(f"{where} has {number} columns {column!r}, not one; it has {names}")
    try:
        numbers = table[settings.column].cast("float64", safe=False)
    except pa.ArrowException as error:
        raise UserError(
            f"{where}: column {settings.column!r} does not hold numbers only"
        ) from error
    values = pd.Series(numbers.to_numpy(), table["image_id"].cast("string").to_pandas())
    rows = ids.map(values.index.value_counts()).fillna(0).astype(int)
    wrong = np.flatnonzero(rows != 1)
    if len(wrong):
        raise UserError(
            f"{where} needs one row for each image, but {len(wrong)} of the {len(ids)} images of "
            f"data.{data.name} have another number, first {ids[wrong[0]]!r} with {rows[wrong[0]]}"
        )
    return values[ids].to_numpy()
