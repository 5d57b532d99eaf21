"""The feature table of a data set: image_id, label, sha256 and feature_count of each image kept."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.counting.shards import Parts
from harness.storage import memory
from harness.storage.memory import SLICE

NONE = pd.DataFrame({"image_id": [], "same_as": []}, dtype="str", index=pd.Index([], dtype=int))
"""No duplicates."""


def duplicates_of(images: pd.DataFrame, parts: Parts, good: np.ndarray) -> pd.DataFrame:
    """The images whose bytes an image before them has, and that image: rows as NONE's.

    Their index is that of the listing, of whose rows `good` [n] says which are images at all.
    """
    table = images.loc[good, ["image_id"]].assign(sha256=_text(parts.sha256[good]).to_numpy())
    again = table["sha256"].duplicated()
    repeated = table[again]
    firsts = table[~again & table["sha256"].isin(repeated["sha256"])].set_index("sha256")
    same_as = repeated["sha256"].map(firsts["image_id"])
    return repeated[["image_id"]].assign(same_as=same_as)


def feature_table(
    images: pd.DataFrame, parts: Parts, kept: np.ndarray, counts: type[np.integer[Any]]
) -> tuple[bytes, str]:
    """The table of the rows `kept` as a Parquet file, and the hash of its digests and counts.

    `counts` is their type. A slice at a time: all of it is the largest thing a count would hold.
    """
    columns = [name for name in images if name not in ("location", "stamp")]
    types = dict.fromkeys([*columns, "sha256"], pa.string())
    schema = pa.schema([*types.items(), ("feature_count", pa.from_numpy_dtype(counts))])
    file, content = io.BytesIO(), hashlib.sha256()
    repeated = [name for name in columns if name != "image_id"]
    with pq.ParquetWriter(file, schema, use_dictionary=repeated) as writer:
        for start in range(0, len(kept), SLICE):
            rows = kept[start : start + SLICE]
            table = images[columns].iloc[rows].set_axis(range(start, start + len(rows)))
            table["sha256"] = parts.sha256[rows].astype(str)
            table["feature_count"] = parts.counts[rows].astype(counts)
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            told = table[["sha256", "feature_count"]]
            content.update(told.to_csv(header=start == 0).encode())
            memory.release()
    return file.getvalue(), content.hexdigest()


def _text(digests: np.ndarray) -> pd.Series:
    """Digests S64 [n] as a column of text, without the four bytes a letter of numpy's."""
    return pa.array(digests).cast(pa.string()).to_pandas()
