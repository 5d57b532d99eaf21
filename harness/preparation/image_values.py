"""A data set's values by another order than the feature count, made once and kept in the store.

`make` computes them through Ray; `load` reads what a run groups its images by. One Parquet file
of `image_id` and `value` each, beside the feature table.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator

import fsspec
import numpy as np
import pandas as pd
import ray

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features.image_values import PIXEL_VALUES, VERSION
from featgan.features.settings import IMAGE_VALUES, FeatureSettings, GroupSettings
from featgan.images.decode import resized
from featgan.images.pack import ImagePack
from featgan.regular_file import open_regular
from featgan.user_code import resolve, source_digest, user_code_errors
from harness.counting.workers import counter, shared_weights
from harness.records.data_set import DataSet, load_table
from harness.records.image_values import dump_values
from harness.storage.store import Store

PART_BYTES = 2**26
"""Pixels of the images that one task looks at."""
FEATURE_IMAGES = 256
"""Images whose features one task holds: 4 MiB of VGG16's."""
LARGEST = 1e150
"""Value, either way, whose square is still a number: k-means adds up squares."""

Progress = Callable[[int, int | None], None]
"""Called with images done and images in all."""


def make(
    data: DataSet,
    groups: GroupSettings,
    features: FeatureSettings,
    store: Store,
    gpu: bool,
    progress: Progress,
) -> str:
    """Store key of the values that `groups.by` names; computed unless they are there.

    Raises `UserError` where a table lacks an image, or a function is not to be had or gives
    anything but one finite number an image.
    """
    if groups.by == "table":
        content = _read_table(groups)
        made_from: list[object] = [groups.column, hashlib.sha256(content).hexdigest()]
    else:
        made_from = _made_from(groups, features)
    name = short_hash(json.dumps([data.digest, *made_from]))  # mended images change the digest
    key = f"{data.key}/scores/{groups.by.replace(':', '.')}-{name}.parquet"
    if not store.exists(key):
        ids = load_table(store, data.key)["image_id"]
        if groups.by == "table":
            values = _column(content, groups, data, ids)
        elif groups.by == "random":
            values = np.random.default_rng(groups.seed).random(len(ids))
        elif groups.by == "centrality":
            values = _centrality(data, features, store, gpu, progress)
        else:
            values = _of_pixels(data, groups.by, store, progress)
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
        if len(bad):
            raise UserError(
                f"groups.by: {groups.by} gives {values[bad[0]]} for {ids[bad[0]]!r} of "
                f"data.{data.name}, and {len(bad)} such values in all; each image needs a "
                f"number within {LARGEST:g} of 0"
            )
        store.put(key, dump_values(key, ids, values))
    return key


def label(groups: GroupSettings, features: FeatureSettings) -> str:
    """What the values are, and their unit: for people."""
    if groups.by == "feature_count":
        return f"{IMAGE_VALUES[groups.by]} (positive outputs of {features.layer_label})"
    if groups.by == "table":
        return str(groups.column)
    return IMAGE_VALUES.get(groups.by, groups.by)


def digest_of(values: np.ndarray) -> str:
    """What tells these values from others: a part of the signature of each run."""
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:12]


def _made_from(groups: GroupSettings, features: FeatureSettings) -> list[object]:
    """All that decides the values, beside the data set and what its key holds already."""
    if groups.by == "random":
        return [VERSION, groups.seed]
    if groups.by == "centrality":  # how features are made is in the key of the data set
        return [VERSION, features.model_dump(mode="json")]
    return [VERSION, groups.by, source_digest(groups.by)]


def _of_pixels(data: DataSet, by: str, store: Store, progress: Progress) -> np.ndarray:
    """A function's values of all images, in tasks over the whole cluster."""
    resolve(by, PIXEL_VALUES)  # a name that leads nowhere is told before anything starts
    size = ImagePack.open(store.local(f"{data.key}/pack")).size
    tasks = [
        _values.remote(store, data.key, by, start, stop)
        for start, stop in _parts(data.images, max(1, PART_BYTES // (3 * size**2)))
    ]
    return np.concatenate([*_told(tasks, data.images, progress)])


@ray.remote(num_cpus=1)
def _values(store: Store, key: str, by: str, start: int, stop: int) -> np.ndarray:
    images = ImagePack.open(store.local(f"{key}/pack")).rows(np.arange(start, stop))
    with user_code_errors(by):
        values = np.asarray(resolve(by, PIXEL_VALUES)(images))
    if values.shape != (len(images),) or values.dtype.kind not in "biuf":
        raise UserError(
            f"groups.by: {by} gave {values.dtype} {list(values.shape)} for {len(images)} images; "
            "it must give one number an image"
        )
    return values.astype(np.float64)


def _centrality(
    data: DataSet, features: FeatureSettings, store: Store, gpu: bool, progress: Progress
) -> np.ndarray:
    """Distance of each image's features to their mean; the features stay in Ray's memory."""
    options = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
    amount = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
    parts = [*_parts(data.images, FEATURE_IMAGES)]
    weights = shared_weights(features)
    actors = [
        _Features.options(**options).remote(store, data.key, features, weights, gpu)  # type: ignore[attr-defined]
        for _ in range(min(max(amount, 1), len(parts)))
    ]
    found = [
        actors[number % len(actors)].of.remote(start, stop)
        for number, (start, stop) in enumerate(parts)
    ]
    sums = [*_told([total for _, total in found], data.images, progress)]
    for actor in actors:
        ray.kill(actor)
    mean = ray.put(np.sum(sums, axis=0) / data.images)
    return np.concatenate(ray.get([_distances.remote(part, mean) for part, _ in found]))


@ray.remote
class _Features:
    """One process with the network; the images are the pack's, at the size of its input."""

    def __init__(
        self,
        store: Store,
        key: str,
        settings: FeatureSettings,
        weights: list[ray.ObjectRef],
        gpu: bool,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self._pack = ImagePack.open(store.local(f"{key}/pack"))
        self._counter = counter(settings, weights, gpu)

    @ray.method(num_returns=2)
    def of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [stop - start, d], and their sum float64 [d]."""
        images = resized(self._pack.rows(np.arange(start, stop)), self._counter.input_size)
        features = self._counter.features(images)
        return features, features.sum(axis=0, dtype=np.float64)


@ray.remote(num_cpus=1)
def _distances(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features - mean, axis=1)


def _read_table(groups: GroupSettings) -> bytes:
    try:
        path = str(groups.table).removeprefix("file://")
        with fsspec.open(path, "rb") if "://" in path else open_regular(path) as file:
            return bytes(file.read())
    # a bucket's client has errors of its own
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"groups.table: {groups.table} cannot be read ({reason})") from error


def _table(content: bytes, groups: GroupSettings) -> pd.DataFrame:
    """The file's content; UserError where it is no table, or names a column twice."""
    file, where = io.BytesIO(content), f"groups.table: {groups.table}"
    repeated: list[str] = []
    try:
        if str(groups.table).endswith(".parquet"):
            table = pd.read_parquet(file)
        else:
            header = pd.read_csv(file, header=None, nrows=1, dtype=str).iloc[0].dropna()
            repeated = header[header.duplicated()].to_list()
            file.seek(0)
            table = pd.read_csv(file, dtype={"image_id": str})
    # pandas and pyarrow have each their own errors for a foreign file
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{where} cannot be read as CSV or Parquet ({reason})") from error
    if repeated:
        raise UserError(f"{where} has several columns {repeated[0]!r}; rename all but one")
    return table


def _column(content: bytes, groups: GroupSettings, data: DataSet, ids: pd.Series) -> np.ndarray:
    """The table's numbers in the order of `ids`."""
    table, where = _table(content, groups), f"groups.table: {groups.table}"
    for column in ("image_id", groups.column):
        if column not in table:
            names = ", ".join(map(str, table.columns[:20]))
            raise UserError(f"{where} has no column {column!r}; it has {names}")
    table = table.set_index(table["image_id"].astype(str))
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{where} has {len(twice)} image_ids twice, first {twice[0]!r}")
    missing = ids[~ids.isin(table.index)]
    if len(missing):
        raise UserError(
            f"{where} has no row for {len(missing)} of the {len(ids)} images of "
            f"data.{data.name}, first {missing.iloc[0]!r}"
        )
    values = table[groups.column].loc[ids]
    if values.dtype.kind not in "biuf":  # dates would pass as nanoseconds, a missing one as well
        raise UserError(f"{where}: column {groups.column!r} holds more than numbers")
    return values.to_numpy(np.float64, na_value=np.nan)


def _parts(total: int, length: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + length, total)) for start in range(0, total, length))


def _told(tasks: list[ray.ObjectRef], images: int, progress: Progress) -> Iterator[np.ndarray]:
    """The tasks' results in order, and to the screen how far they have come."""
    progress(0, images)
    for number, task in enumerate(tasks, 1):
        yield ray.get(task)
        progress(images * number // len(tasks), images)
