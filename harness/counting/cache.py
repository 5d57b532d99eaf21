"""Counts made before, for any data set: one table of them for each way of counting."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featgan.digests import short_hash
from harness.storage.store import Store

NOT_COUNTED = -1
Makers = list[dict[str, str]]
"""The devices and library versions that counts were made with."""


@dataclass(frozen=True)
class EarlierCounts:
    """The counts of images by the SHA-256 of their bytes."""

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
        """Return these counts and others, whose digests are hexadecimal: S64 [n]."""
        others = np.frombuffer(bytes.fromhex(sha256.tobytes().decode()), "S32")
        digests, first = np.unique(np.concatenate([self.sha256, others]), return_index=True)
        merged = np.concatenate([self.counts, counts])[first].astype(np.int32)
        new = [maker for maker in makers if maker not in self.makers]
        return EarlierCounts(digests, merged, [*self.makers, *new])


def load_counts(store: Store, kind: dict[str, Any]) -> EarlierCounts:
    """Load the counts that were made in a way; none where the table is missing or damaged."""
    try:
        content = store.get(_key(kind))
    except FileNotFoundError:
        return EarlierCounts()
    try:
        table = pq.read_table(io.BytesIO(content))
        about = json.loads(table.schema.metadata[b"featgan"])
        digests, counts = table["sha256"].combine_chunks(), table["feature_count"].to_numpy()
        sha256 = np.frombuffer(digests.buffers()[1], "S32", len(digests), 32 * digests.offset)
        whole = about["sha256"] == _digest(sha256, counts, about["makers"])
    # pyarrow raises exceptions of any kind for a damaged file
    except Exception:
        whole = False
    return EarlierCounts(sha256, counts, about["makers"]) if whole else EarlierCounts()


def save_counts(store: Store, kind: dict[str, Any], earlier: EarlierCounts) -> None:
    """Save the counts; where two sweeps do at once, one of them may have to count again."""
    digests = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(earlier.sha256), [None, pa.py_buffer(earlier.sha256)]
    )
    sha256 = _digest(earlier.sha256, earlier.counts, earlier.makers)
    about = json.dumps({"sha256": sha256, "makers": earlier.makers})
    table = pa.table({"sha256": digests, "feature_count": earlier.counts})
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"featgan": about}), file, use_dictionary=False)
    store.put(_key(kind), file.getvalue())


def _key(kind: dict[str, Any]) -> str:
    return f"features/counts/{short_hash(kind)}.parquet"


def _digest(sha256: np.ndarray, counts: np.ndarray, makers: Makers) -> str:
    hashed = hashlib.sha256(json.dumps(makers).encode())
    hashed.update(sha256.tobytes())
    hashed.update(counts.astype("<i4").tobytes())
    return hashed.hexdigest()
