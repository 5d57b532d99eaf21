"""A data set in the store: record, feature table, images, rejections; values to group it by."""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from featgan.digests import sha256_of_file
from featgan.errors import UserError, first_line
from featgan.images.pack import ImagePack
from harness.records.sweep_records import DataRecord
from harness.sources import SourceSettings
from harness.storage.sealed import SEAL, first_problem
from harness.storage.store import Store

DRAW = "featgan held out"
"""Key, of 16 bytes, of the hash that draws images to hold out."""
AT_ONCE = 16
"""Shards fetched from a bucket at the same time."""


@dataclass(frozen=True)
class Shard:
    """One file of a data set's pack."""

    file: str
    images: int
    sha256: str


class DataSet(DataRecord):
    """A data set that is counted and packed; `dataset.json` is this model as sealed JSON."""

    table_sha256: str = ""
    """Of `features.parquet`."""
    rejected_sha256: str = ""
    """Of `rejected.csv`."""
    unreadable: int = 0
    """Rejected images that could not be read, which the next sweep tries again."""
    shards: tuple[Shard, ...] = ()
    """The files of its pack; the table has the place of each image in them."""
    held_out: float = Field(0.0, exclude=True)
    """Share of the images that a sweep never trains on; sweeps may differ in it."""

    def __hash__(self) -> int:
        return hash(self.key)


def read_data_set(store: Store, key: str) -> DataSet:
    """Read the record of a data set; UserError if it is damaged or another folder's."""
    try:
        data = DataSet.model_validate_json(store.get(f"{key}/dataset.json"))
    except ValidationError as error:
        raise _damaged(store, key, f"dataset.json: {first_problem(error)}") from error
    if data.key != key:
        raise _damaged(store, key, f"dataset.json is that of {data.key}")
    return data


def load_table(store: Store, key: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Load the feature table, or some of its columns.

    They are image_id, sha256, feature_count, label and pack_row, the place of the image in the
    shards of the pack. Rows are in the order of the images' digests.
    """
    path = store.local(f"{key}/features.parquet")
    try:
        return pd.read_parquet(path, columns=columns, partitioning=None)
    except (OSError, ValueError) as error:
        raise _damaged(store, key, f"features.parquet cannot be read: {error}") from error


def load_labels(store: Store, data: DataSet) -> np.ndarray:
    """Load the label of each image for a GAN, as text [n]; UserError if an image has none."""
    table = load_table(store, data.key)
    if missing := int(table["label"].isna().sum()):
        raise UserError(
            f"gan.conditional: {missing:,} of the {data.images:,} images of data.{data.name} have "
            "no label; give every image one, or leave the data set out"
        )
    return table.get("noisy_label", table["label"]).to_numpy(str)


def held_out(store: Store, data: DataSet) -> np.ndarray:
    """Return, bool [n], which images of a data set are never trained on.

    They are drawn by a hash of their pixels' digests: the same in every data set that has them.
    Raises UserError where they are fewer than two.
    """
    if not data.held_out:
        return np.zeros(data.images, bool)
    digests = load_table(store, data.key, ["sha256"])["sha256"].to_numpy(object)
    hashes = pd.util.hash_array(digests, hash_key=DRAW, categorize=False)
    found = hashes < data.held_out * 2.0**64
    if found.sum() < 2:
        raise UserError(
            f"data.{data.name}.held_out: {found.sum()} of {data.images} images, and metrics take 2 "
            "or more: raise it, or add images"
        )
    return found


def check(store: Store, data: DataSet) -> None:
    """Read all of a data set; UserError if a byte of table or images is not as it was counted."""
    table = store.get(f"{data.key}/features.parquet")
    if hashlib.sha256(table).hexdigest() != data.table_sha256:
        raise _damaged(store, data.key, "features.parquet is not the table that was counted")
    for shard, path in zip(data.shards, _local_shards(store, data), strict=True):
        if sha256_of_file(path) != shard.sha256:
            raise _damaged(store, data.key, f"pack/{shard.file} is not the file that was made")


def open_pack(store: Store, key: str) -> ImagePack:
    """Open the images of a data set, in the order of its table; of a bucket, a local copy."""
    data = read_data_set(store, key)
    lengths = [shard.images for shard in data.shards]
    stored = load_table(store, key, ["pack_row"])["pack_row"].to_numpy()
    return ImagePack(_local_shards(store, data), lengths, stored)


def _local_shards(store: Store, data: DataSet) -> list[Path]:
    keys = [f"{data.key}/pack/{shard.file}" for shard in data.shards]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(store.local, keys))
    except FileNotFoundError as error:
        raise _damaged(store, data.key, f"a file of its pack is missing ({error})") from error


def _damaged(store: Store, key: str, what: str) -> UserError:
    return UserError(f"{store.join(key)}: {first_line(what)}; remove this folder to count it again")


def load_rejected(store: Store, data: DataSet) -> pd.DataFrame:
    """Load the list of rejected images: image_id, reason."""
    file = store.get(f"{data.key}/rejected.csv")
    if hashlib.sha256(file).hexdigest() != data.rejected_sha256:
        raise _damaged(store, data.key, "rejected.csv is not the list that was made")
    text = io.StringIO(file.decode(), newline="")
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def data_record(store: Store, data: DataSet, source: SourceSettings) -> DataRecord:
    """Return how a data set was made, for the folder of a sweep."""
    rejections = load_rejected(store, data).head(100).to_dict("records")
    return DataRecord(**dict(data) | {"source": source.model_dump(), "rejections": rejections})


def dump_values(key: str, image_ids: pd.Series, values: np.ndarray) -> bytes:
    """Return the Parquet file of `image_id` and `value` that belongs at the store key `key`."""
    table = pd.DataFrame({"image_id": image_ids, "value": values})
    table.attrs[SEAL] = _digest_of_values(key, table)
    return table.to_parquet(index=False)


def load_values(store: Store, data_key: str, values_key: str | None) -> np.ndarray:
    """Return the values [n] of a data set's images in the order of its pack.

    Without a `values_key` these are the feature counts. Raises UserError for a file that is
    damaged, or that belongs to another key.
    """
    if values_key is None:
        return load_table(store, data_key)["feature_count"].to_numpy()
    content = store.get(values_key)
    try:
        table = pd.read_parquet(io.BytesIO(content))
        intact = table.attrs[SEAL] == _digest_of_values(values_key, table)
    except Exception:  # pyarrow has no common error for damaged files
        intact = False
    if not intact:
        raise UserError(
            f"{store.join(values_key)}: damaged, or the content of another file; remove it, and "
            "the sweep recreates it"
        )
    return table["value"].to_numpy(np.float64)


def _digest_of_values(key: str, table: pd.DataFrame) -> str:
    """Return the SHA-256 of images and values and of their key, so that a swapped file is found."""
    content = hashlib.sha256(json.dumps([key, *table["image_id"]]).encode())
    content.update(table["value"].to_numpy("<f8").tobytes())
    return content.hexdigest()
