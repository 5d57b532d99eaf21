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
from featgan.features.image_values import PIXEL_VALUES, VERSION
from featgan.features.settings import IMAGE_VALUES, FeatureSettings, GroupSettings
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
    groups: GroupSettings,
    features: FeatureSettings,
    store: Store,
    gpu: bool,
    progress: Progress,
) -> str:
    """Return the store key of the values that `groups.by` names; compute them if they are missing.

    Raises UserError where a table lacks an image, or a function cannot be imported or returns
    anything but one finite number an image.
    """
    by = groups.by
    made_from: list[object] = [VERSION, by]
    if by == "table":
        made_from += [groups.column, hashlib.sha256(_read_table(groups)).hexdigest()]
    elif by == "random":
        made_from.append(groups.seed)
    elif by == "centrality":
        made_from.append(features.model_dump(mode="json"))
    else:
        made_from.append(source_digest(by))

    def compute() -> bytes:
        ids = load_table(store, data.key)["image_id"]
        if by not in ("table", "random"):
            kind = "GPU" if gpu and by == "centrality" else "CPU"
            connect.await_room({kind: 1}, progress)
        if by == "table":
            values = _column(groups, data, ids)
        elif by == "random":
            values = np.random.default_rng(groups.seed).random(len(ids))
        elif by == "centrality":
            values = _centrality(data, features, store, gpu, progress)
        else:
            values = _of_pixels(data, by, store, progress)
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
        if len(bad):
            raise UserError(
                f"groups.by: {by} gives {values[bad[0]]} for {ids[bad[0]]!r} of "
                f"data.{data.name}, and {len(bad)} such values in all; each image needs a "
                f"number within {LARGEST:g} of 0"
            )
        return dump_values(key, ids, values)

    name = short_hash(data.digest, *made_from)  # images that become readable change the digest
    key = f"{data.key}/scores/{by.replace(':', '.')}-{name}.parquet"
    return store.once(key, compute)


def label(groups: GroupSettings, features: FeatureSettings) -> str:
    """Return a description of the values and their unit."""
    if groups.by == "feature_count":
        return f"{IMAGE_VALUES[groups.by]} (positive outputs of {features.layer_label})"
    if groups.by == "table":
        return str(groups.column)
    return IMAGE_VALUES.get(groups.by, groups.by)


def digest(values: np.ndarray) -> str:
    """Return the hash of values that is a part of the signature of runs."""
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:12]


def _of_pixels(data: DataSet, by: str, store: Store, progress: Progress) -> np.ndarray:
    """Return a function's values [n] of all images, from tasks on the whole cluster."""
    image_bytes = 3 * open_pack(store, data.key).size ** 2
    parts = _parts(data, max(1, PART_BYTES // image_bytes))
    tasks = [_values.remote(store, data.key, by, part) for part in parts]
    return np.concatenate(_results(tasks, data, by, progress))


@ray.remote(num_cpus=1)
def _values(store: Store, key: str, by: str, part: range) -> np.ndarray:
    images = open_pack(store, key).rows(np.array(part))
    with user_code_errors(by):
        values = np.asarray(resolve(by, PIXEL_VALUES)(images))
    if values.shape != (len(images),) or values.dtype.kind not in "biuf":
        raise UserError(
            f"groups.by: {by} returned {values.dtype} {list(values.shape)} for {len(images)} "
            "images; it must return one number an image"
        )
    return values.astype(np.float64)


def _centrality(
    data: DataSet, features: FeatureSettings, store: Store, gpu: bool, progress: Progress
) -> np.ndarray:
    """Return the distance [n] of each image's features to their mean.

    The features stay in Ray's memory.
    """
    parts, weights = _parts(data, FEATURE_IMAGES), shared_weights(features)
    amount = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
    actor: Any = ray.remote(num_cpus=int(not gpu), num_gpus=int(gpu))(_Features)
    actors = [
        actor.remote(store, data.key, features, weights, gpu)
        for _ in range(min(max(amount, 1), len(parts)))
    ]
    found = [actors[number % len(actors)].of.remote(part) for number, part in enumerate(parts)]
    sums = _results([total for _, total in found], data, "centrality", progress)
    del actors  # ends them: the tasks need their processors
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


def _read_table(groups: GroupSettings) -> bytes:
    """Return the content of the file of `groups.table`."""
    path = str(groups.table).removeprefix("file://")
    if "://" not in path and not Path(path).expanduser().is_file():
        raise UserError(f"groups.table: {groups.table}: not a file; give a CSV or Parquet file")
    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # a bucket's client raises errors of its own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"groups.table: {groups.table} cannot be read ({reason})") from error


def _column(groups: GroupSettings, data: DataSet, ids: pd.Series) -> np.ndarray:
    """Return the numbers of the table's column in the order of `ids`."""
    file, where = io.BytesIO(_read_table(groups)), f"groups.table: {groups.table}"
    try:
        if str(groups.table).endswith(".parquet"):
            table = parquet.read_table(file)
        else:
            as_text = csv.ConvertOptions(column_types={"image_id": pa.string()})
            lines = csv.ParseOptions(newlines_in_values=True)
            table = csv.read_csv(file, parse_options=lines, convert_options=as_text)
    except Exception as error:  # Arrow raises its own errors and Python's
        raise UserError(f"{where} is not CSV or Parquet ({first_line(error)})") from error
    for column in ("image_id", groups.column):
        if (number := table.column_names.count(column)) != 1:
            names = ", ".join(table.column_names[:20])
            raise UserError(f"{where} has {number} columns {column!r}, not one; it has {names}")
    try:
        numbers = table[groups.column].cast("float64", safe=False)
    except pa.ArrowException as error:
        raise UserError(f"{where}: column {groups.column!r} does not hold numbers only") from error
    values = pd.Series(numbers.to_numpy(), table["image_id"].cast("string").to_pandas())
    rows = ids.map(values.index.value_counts()).fillna(0).astype(int)
    wrong = np.flatnonzero(rows != 1)
    if len(wrong):
        raise UserError(
            f"{where} needs one row for each image, but {len(wrong)} of the {len(ids)} images of "
            f"data.{data.name} have another number, first {ids[wrong[0]]!r} with {rows[wrong[0]]}"
        )
    return values[ids].to_numpy()
