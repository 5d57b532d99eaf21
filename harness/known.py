"""Counts made before: what need not be counted again, by the SHA-256 of an image's bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.sealed import unseal
from harness.store import Store

NOT_COUNTED = -1


@dataclass(frozen=True)
class Known:
    """Counts that need not be made again, by SHA-256 of the image's bytes."""

    sha256: np.ndarray
    """Sorted digests: S32 [n]."""
    counts: np.ndarray
    """int32 [n]."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Known:
        """From the columns `sha256` (hexadecimal) and `feature_count`."""
        digests = np.frombuffer(bytes.fromhex("".join(table["sha256"])), "S32")
        digests, first = np.unique(digests, return_index=True)
        return cls(digests, table["feature_count"].to_numpy(np.int32)[first])

    def get(self, digest: bytes) -> int:
        """The count of an image, or NOT_COUNTED."""
        wanted = np.array(digest, dtype="S32")
        place = int(np.searchsorted(self.sha256, wanted))
        found = place < len(self.sha256) and self.sha256[place] == wanted
        return int(self.counts[place]) if found else NOT_COUNTED


def whole_counts(store: Store, key: str) -> pd.DataFrame:
    """The columns sha256 and feature_count of a data set's table; no rows of a damaged one."""
    nothing = pd.DataFrame({"sha256": [], "feature_count": []})
    try:
        counted = unseal(store.get(f"{key}/dataset.json"))
        table = store.get(f"{key}/features.parquet")
    except (ValueError, FileNotFoundError):
        return nothing
    if hashlib.sha256(table).hexdigest() != counted.get("table_sha256"):
        return nothing
    return pd.read_parquet(io.BytesIO(table), columns=["sha256", "feature_count"])
