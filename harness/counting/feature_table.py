"""The feature table of a data set: image_id, label, sha256 and feature_count of each image kept."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.counting.shards import Blocks
from harness.sources.listing import SLICE

NO_DUPLICATES = pd.DataFrame(
    {"image_id": [], "same_as": []}, dtype="str", index=pd.Index([], dtype=int)
)


def find_duplicates(images: pd.DataFrame, sha256: np.ndarray, good: np.ndarray) -> pd.DataFrame:
    """Return the images whose bytes an image before them has: `image_id`, `same_as`.

    `sha256` S64 [n] and `good` bool [n] describe the images; the index is that of `images`.
    """
    # as Arrow text: numpy's takes four bytes a letter
    digests = pa.array(sha256[good]).cast(pa.string()).to_pandas()
    table = images.loc[good, ["image_id"]].assign(sha256=digests.to_numpy())
    again = table["sha256"].duplicated()
    repeated = table[again]
    firsts = table[~again & table["sha256"].isin(repeated["sha256"])].set_index("sha256")
    same_as = repeated["sha256"].map(firsts["image_id"])
    return repeated[["image_id"]].assign(same_as=same_as)


def feature_table(
    images: pd.DataFrame, blocks: Blocks, kept: np.ndarray, counts: type[np.integer[Any]]
) -> tuple[bytes, str]:
    """Return a Parquet file of the images at `kept`, and the hash of their digests and counts.

    `counts` is the type of a count. Built in slices: a whole table is the largest thing a count
    would hold.
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
            table["sha256"] = blocks.sha256[rows].astype(str)
            table["feature_count"] = blocks.counts[rows].astype(counts)
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            hashed = table[["sha256", "feature_count"]]
            content.update(hashed.to_csv(header=start == 0).encode())
    return file.getvalue(), content.hexdigest()
