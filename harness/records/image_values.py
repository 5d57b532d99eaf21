"""The file of the values that a data set's images are grouped by, where these are not counts."""

import hashlib
import io
import json

import numpy as np
import pandas as pd

from featgan.errors import UserError
from harness.records.data_set import load_table
from harness.storage.sealed import SEAL
from harness.storage.store import Store


def dump_values(key: str, image_ids: pd.Series, values: np.ndarray) -> bytes:
    """Return the Parquet file of `image_id` and `value` that belongs at the store key `key`."""
    table = pd.DataFrame({"image_id": image_ids, "value": values})
    table.attrs[SEAL] = _digest(key, table)
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
        intact = table.attrs[SEAL] == _digest(values_key, table)
    except Exception:  # pyarrow has no common error for damaged files
        intact = False
    if not intact:
        raise UserError(
            f"{store.join(values_key)}: damaged, or the content of another file; remove it, and "
            "the sweep recreates it"
        )
    return table["value"].to_numpy(np.float64)


def _digest(key: str, table: pd.DataFrame) -> str:
    """Return the SHA-256 of images and values and of their key, so that a swapped file is found."""
    content = hashlib.sha256(json.dumps([key, *table["image_id"]]).encode())
    content.update(table["value"].to_numpy("<f8").tobytes())
    return content.hexdigest()
