"""A data set that is counted and packed: its record, table, images and rejections in the store."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from featgan.errors import UserError, first_line
from featgan.images.pack import ImagePack
from harness.sources import SourceSettings
from harness.storage.sealed import seal, unseal
from harness.storage.store import Store

FORMAT = 1
"""Of `dataset.json` and `protocol.json`, which also tell the folder they belong to."""


@dataclass(frozen=True)
class DataSet:
    """A data set that is counted and packed."""

    name: str
    key: str
    """Its folder in the store: `features/<name>-<hash of listing and protocol>`."""
    digest: str
    """Hash of what its images and counts are: part of the signature of each run."""
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
    """Of the rejected: those that could not be read, which the next sweep tries again."""


def read_data_set(store: Store, key: str) -> DataSet:
    """The record of the data set in this folder; UserError for one that is damaged or foreign."""
    record = _own(store, key, "dataset.json")
    return DataSet(**record | {"key": key, "classes": tuple(record["classes"])})


def read_protocol(store: Store, key: str) -> dict[str, Any]:
    """How the images of this folder were counted; UserError for a file damaged or foreign."""
    return _own(store, key, "protocol.json")


def put_record(store: Store, key: str, name: str, record: dict[str, Any]) -> None:
    """Write a sealed file that tells whose it is."""
    store.put(f"{key}/{name}", seal(record | {"format": FORMAT, "key": key}))


def _own(store: Store, key: str, name: str) -> dict[str, Any]:
    """What a sealed file holds that tells this folder's key; UserError for any other."""
    try:
        record = unseal(store.get(f"{key}/{name}"))
    except ValueError as error:
        raise _damaged(store, key, f"{name}: {error}") from error
    if record.pop("format", None) != FORMAT:
        raise _damaged(store, key, f"{name} is another version's")
    if (told := record.pop("key", None)) != key:
        raise _damaged(store, key, f"{name} is that of {told}")
    return record


def load_table(store: Store, key: str) -> pd.DataFrame:
    """The feature table: image_id, sha256, feature_count, label, in the order of the pack."""
    data = store.get(f"{key}/features.parquet")
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise _damaged(store, key, f"features.parquet cannot be read: {error}") from error


def check(store: Store, data: DataSet) -> None:
    """Raise UserError where the table or the images are not, to the byte, what was counted."""
    table = store.get(f"{data.key}/features.parquet")
    if hashlib.sha256(table).hexdigest() != data.table_sha256:
        raise _damaged(store, data.key, "features.parquet is not the table that was counted")
    try:
        folder = store.local(f"{data.key}/pack")
        ImagePack.check(folder)
        same = ImagePack.open(folder).image_ids.equals(load_table(store, data.key)["image_id"])
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(store, data.key, f"its images: {error}") from error
    if not same:
        raise _damaged(store, data.key, "its images are another data set's")


def _damaged(store: Store, key: str, what: str) -> UserError:
    return UserError(
        f"{store.join(key)}: {first_line(what)}; remove this folder, and it is counted again"
    )


def load_rejected(store: Store, data: DataSet) -> pd.DataFrame:
    """The images that could not be used: image_id, reason."""
    file = store.get(f"{data.key}/rejected.csv")
    if hashlib.sha256(file).hexdigest() != data.rejected_sha256:
        raise _damaged(store, data.key, "rejected.csv is not the list that was made")
    text = io.StringIO(file.decode(), newline="")
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def data_record(store: Store, data_set: DataSet, source: SourceSettings) -> dict[str, Any]:
    """How a sweep's data set was made, for its folder: everything a reader may ask."""
    rejected = load_rejected(store, data_set)
    return asdict(data_set) | {
        "source": source.model_dump(),
        "protocol": read_protocol(store, data_set.key),
        "rejections": rejected.head(100).to_dict("records"),
    }
