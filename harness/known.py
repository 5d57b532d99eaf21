"""Counts made before: what need not be counted again, by the SHA-256 of an image's bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.parts import Parts
from harness.sealed import unseal
from harness.store import Store

NOT_COUNTED = -1
MAKERS = "made_with"
"""Key of what counts were made with."""


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


def known_counts(
    store: Store, kind: dict[str, Any], maker: dict[str, str]
) -> tuple[Known, list[dict[str, str]]]:
    """All counts of this kind in the store, those of interrupted counts included.

    Beside them what they were made with, and `maker`, which makes the others.
    """
    tables = [pd.DataFrame({"sha256": [], "feature_count": []})]
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
        if store.exists(f"{key}/dataset.json"):
            tables.append(_whole_counts(store, key))
        else:
            tables.append(Parts.left_in(store, key))
        makers += made_with if len(tables[-1]) else []
    makers.append(maker)
    return Known.of(pd.concat(tables)), [m for i, m in enumerate(makers) if m not in makers[:i]]


def _whole_counts(store: Store, key: str) -> pd.DataFrame:
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
