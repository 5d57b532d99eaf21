"""A data set in the store that is counted and packed: record, table, images and rejections."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from featgan.digests import sha256_of_file
from featgan.errors import UserError, first_line
from featgan.images.pack import ImagePack
from harness.records.sweep_records import DataRecord
from harness.sources import SourceSettings
from harness.storage.sealed import seal, unseal
from harness.storage.store import Store

FORMAT = 1
"""Of `dataset.json` and `protocol.json`, which also name the folder they belong to."""
AT_ONCE = 16
"""Shards fetched from a bucket at the same time."""


@dataclass(frozen=True)
class Shard:
    """One file of a data set's pack."""

    file: str
    images: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """A data set that is counted and packed."""

    name: str
    key: str
    """Its folder in the store: `features/<name>-<hash of listing and protocol>`."""
    digest: str
    """Hash of its images and counts: part of the signature of each run."""
    images: int
    rejected: int
    duplicates: int
    classes: tuple[str, ...]
    """Labels that occur, sorted."""
    matched: int | None = None
    """Images that the source's filter left, before any limit."""
    table_sha256: str = ""
    """Of `features.parquet`."""
    rejected_sha256: str = ""
    """Of `rejected.csv`."""
    unreadable: int = 0
    """Rejected images that could not be read, which the next sweep tries again."""
    shards: tuple[Shard, ...] = ()
    """The files of its pack, in the order of the table."""
    left_out: tuple[int, ...] = ()
    """Rows of the shards, counted through, that are duplicates and not in the table."""
    skipped: dict[str, int] = field(default_factory=dict, compare=False)
    """Files in the source that are not taken for images, by kind; of its latest listing."""


def read_data_set(store: Store, key: str) -> DataSet:
    """Read the record of a data set; UserError if it is damaged or another folder's."""
    record = _own(store, key, "dataset.json")
    return TypeAdapter(DataSet).validate_python(record | {"key": key})


def put_data_set(store: Store, data: DataSet) -> None:
    """Write the record that makes a data set a finished one."""
    put_record(store, data.key, "dataset.json", asdict(data))


def read_protocol(store: Store, key: str) -> dict[str, Any]:
    """Read how images were counted; UserError if the file is damaged or another folder's."""
    return _own(store, key, "protocol.json")


def put_record(store: Store, key: str, name: str, record: dict[str, Any]) -> None:
    """Write a sealed file that names its folder."""
    store.put(f"{key}/{name}", seal(record | {"format": FORMAT, "key": key}))


def _own(store: Store, key: str, name: str) -> dict[str, Any]:
    """Read a sealed file that names this folder; UserError for any other."""
    try:
        record = unseal(store.get(f"{key}/{name}"))
    except ValueError as error:
        raise _damaged(store, key, f"{name}: {error}") from error
    if record.pop("format", None) != FORMAT:
        raise _damaged(store, key, f"{name} is another version's")
    if (other := record.pop("key", None)) != key:
        raise _damaged(store, key, f"{name} is that of {other}")
    return record


def load_table(store: Store, key: str) -> pd.DataFrame:
    """Load the feature table: image_id, sha256, feature_count, label, in the order of the pack."""
    data = store.get(f"{key}/features.parquet")
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise _damaged(store, key, f"features.parquet cannot be read: {error}") from error


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
    return ImagePack(_local_shards(store, data), lengths, data.left_out)


def _local_shards(store: Store, data: DataSet) -> list[Path]:
    keys = [f"{data.key}/pack/{shard.file}" for shard in data.shards]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(store.local, keys))
    except FileNotFoundError as error:
        raise _damaged(store, data.key, f"a file of its pack is missing ({error})") from error


def _damaged(store: Store, key: str, what: str) -> UserError:
    return UserError(
        f"{store.join(key)}: {first_line(what)}; remove this folder, and it is counted again"
    )


def load_rejected(store: Store, data: DataSet) -> pd.DataFrame:
    """Load the list of rejected images: image_id, reason."""
    file = store.get(f"{data.key}/rejected.csv")
    if hashlib.sha256(file).hexdigest() != data.rejected_sha256:
        raise _damaged(store, data.key, "rejected.csv is not the list that was made")
    text = io.StringIO(file.decode(), newline="")
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def data_record(store: Store, data_set: DataSet, source: SourceSettings) -> DataRecord:
    """Return how a data set was made, for the folder of a sweep."""
    rejected = load_rejected(store, data_set)
    return DataRecord(
        source=source.model_dump(),
        protocol=read_protocol(store, data_set.key),
        rejections=rejected.head(100).to_dict("records"),
        **asdict(data_set),
    )
