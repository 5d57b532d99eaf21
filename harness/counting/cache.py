"""Counts made before: what need not be counted again, by the SHA-256 of an image's bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from harness.counting.shards import Parts
from harness.storage.memory import SLICE
from harness.storage.sealed import unseal
from harness.storage.store import Store

NOT_COUNTED = -1
MAKERS = "made_with"
"""Key of what counts were made with."""


@dataclass(frozen=True)
class Known:
    """Counts that need not be made again, by SHA-256 of the image's bytes."""

    sha256: np.ndarray = field(default_factory=lambda: np.empty(0, "S32"))
    """Sorted digests: S32 [n]."""
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 [n]."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Known:
        """From the columns `sha256` (hexadecimal) and `feature_count`."""
        digests = np.frombuffer(bytes.fromhex("".join(table["sha256"])), "S32")
        return cls.merged([cls(digests, table["feature_count"].to_numpy(np.int32))])

    @classmethod
    def merged(cls, some: Iterable[Known]) -> Known:
        """All of them; of an image that several know, the first one's count."""
        every = [cls(), *some]
        digests, first = np.unique(np.concatenate([k.sha256 for k in every]), return_index=True)
        return cls(digests, np.concatenate([k.counts for k in every])[first])

    def get(self, digest: bytes) -> int:
        """The count of an image, or NOT_COUNTED."""
        wanted = np.array(digest, dtype="S32")
        place = int(np.searchsorted(self.sha256, wanted))
        found = place < len(self.sha256) and self.sha256[place] == wanted
        return int(self.counts[place]) if found else NOT_COUNTED


def known_counts(
    store: Store, kind: dict[str, Any], maker: dict[str, str]
) -> tuple[Known, list[dict[str, str]]]:
    """All counts of this kind in the store, those of interrupted counts included.

    Beside them what they were made with, and `maker`, which makes the others.
    """
    known: list[Known] = []
    makers: list[dict[str, str]] = []
    for file in store.list("features"):
        key, _, leaf = file.rpartition("/")
        if leaf != "counting.json":
            continue
        try:
            found = unseal(store.get(file))
        except (ValueError, FileNotFoundError):  # damaged, or just removed: nothing is known of it
            continue
        made_with = found.pop(MAKERS, [])
        if found != kind:
            continue
        tables = chain(_whole_counts(store, key), Parts.left_in(store, key))
        known.append(Known.merged(map(Known.of, tables)))
        makers += made_with if len(known[-1].counts) else []
    makers.append(maker)
    return Known.merged(known), [m for i, m in enumerate(makers) if m not in makers[:i]]


def _whole_counts(store: Store, key: str) -> Iterator[pd.DataFrame]:
    """The columns sha256 and feature_count of a data set's table, in pieces; none if damaged."""
    try:
        counted = unseal(store.get(f"{key}/dataset.json"))
        table = store.get(f"{key}/features.parquet")
    except (ValueError, FileNotFoundError):
        return
    if hashlib.sha256(table).hexdigest() != counted.get("table_sha256"):
        return
    file = pq.ParquetFile(io.BytesIO(table))
    for piece in file.iter_batches(SLICE, columns=["sha256", "feature_count"]):
        yield piece.to_pandas()
