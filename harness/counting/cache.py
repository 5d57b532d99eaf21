"""Counts made before, for any data set: one file of them for each way of counting."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featgan.digests import short_hash
from harness.storage.store import Store

NOT_COUNTED = -1
Makers = list[dict[str, str]]
"""The devices and library versions that counts were made with."""


@dataclass(frozen=True)
class EarlierCounts:
    """The counts of images by the SHA-256 of their pixels."""

    sha256: np.ndarray = field(default_factory=lambda: np.empty(0, "S32"))
    """Sorted digests: S32 [n]."""
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 [n]."""
    makers: Makers = field(default_factory=list)

    def get(self, digest: bytes) -> int:
        """Return the count of an image, or NOT_COUNTED."""
        wanted = np.array(digest, dtype="S32")
        place = int(np.searchsorted(self.sha256, wanted))
        found = place < len(self.sha256) and self.sha256[place] == wanted
        return int(self.counts[place]) if found else NOT_COUNTED

    def merged(self, sha256: np.ndarray, counts: np.ndarray, makers: Makers) -> EarlierCounts:
        """Return these counts and others, by their digests S32 [n]."""
        digests, first = np.unique(np.concatenate([self.sha256, sha256]), return_index=True)
        merged = np.concatenate([self.counts, counts])[first].astype(np.int32)
        new = [maker for maker in makers if maker not in self.makers]
        return EarlierCounts(digests, merged, [*self.makers, *new])


def load_counts(store: Store, kind: dict[str, Any]) -> EarlierCounts:
    """Load the counts that were made in a way; none where the file is missing or damaged."""
    try:
        with np.load(io.BytesIO(store.get(_key(kind)))) as arrays:
            makers = json.loads(str(arrays["makers"]))
            return EarlierCounts(arrays["sha256"], arrays["counts"], makers)
    # zipfile, which verifies the arrays' CRC-32, raises exceptions of many kinds
    except Exception:
        return EarlierCounts()


def save_counts(store: Store, kind: dict[str, Any], counts: EarlierCounts) -> None:
    """Save the counts; where two sweeps do at once, one of them may have to count again."""
    file = io.BytesIO()
    makers = json.dumps(counts.makers)
    np.savez(file, sha256=counts.sha256, counts=counts.counts, makers=makers)
    store.put(_key(kind), file.getvalue())


def _key(kind: dict[str, Any]) -> str:
    return f"features/counts/{short_hash(kind)}.npz"
