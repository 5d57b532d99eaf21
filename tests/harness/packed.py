"""A small data set in a store, as a count leaves it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from featgan.images.pack import shard_bytes
from harness.records.data_set import DataSet, Shard
from harness.storage.store import Store

NO_REJECTIONS = b'"image_id","reason"\n'


def put_counted(
    store: Store,
    key: str,
    images: np.ndarray,
    counts: Sequence[int] | np.ndarray,
    labels: Sequence[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
    rejected: bytes = NO_REJECTIONS,
    **more: Any,
) -> DataSet:
    """Write table, pack and record of `images` uint8 [n, 3, S, S]; `more` is for the record."""
    ids = ids or [f"{n}.png" for n in range(len(images))]
    table = pd.DataFrame({"image_id": ids, "sha256": ids, "feature_count": counts, "label": labels})
    table["pack_row"] = range(len(images))
    content, shard = table.to_parquet(index=False), shard_bytes(images)
    store.put(f"{key}/features.parquet", content)
    store.put(f"{key}/pack/00000.npy", shard)
    store.put(f"{key}/rejected.csv", rejected)
    fields: dict[str, Any] = {"name": "a", "digest": "d"} | more
    data = DataSet(
        key=key,
        images=len(images),
        classes=tuple(sorted({*(labels or [])} - {None})),
        table_sha256=hashlib.sha256(content).hexdigest(),
        rejected_sha256=hashlib.sha256(rejected).hexdigest(),
        shards=(Shard("00000.npy", len(images), hashlib.sha256(shard).hexdigest()),),
        **fields,
    )
    store.put(f"{key}/dataset.json", data.to_json())
    return data
