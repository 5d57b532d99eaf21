"""Counts made before, for any data set: one file of them for each way of counting."""

from __future__ import annotations

import io
import json
import mmap
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any

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
        """Return these counts and others, by their digests S32 [n]; NOT_COUNTED are left out."""
        if len(self.sha256):  # of a million digests a copy counts
            sha256 = np.concatenate([self.sha256, sha256])
            counts = np.concatenate([self.counts, counts])
        order = digest_order(sha256)
        order = order[counts[order] != NOT_COUNTED]
        digests, merged = sha256[order], counts[order].astype(np.int32)
        if len(again := 1 + np.flatnonzero(digests[1:] == digests[:-1])):
            digests, merged = np.delete(digests, again), np.delete(merged, again)
        new = [maker for maker in makers if maker not in self.makers]
        return EarlierCounts(digests, merged, [*self.makers, *new])


def digest_order(sha256: np.ndarray, *then: np.ndarray) -> np.ndarray:
    """Return the places [n] of digests S32 [n] in their order; of equal ones, in that of `then`."""
    return np.lexsort((*then, *sha256.view(">u8").reshape(-1, 4).T[::-1]))


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
    with TemporaryFile() as file:
        makers = json.dumps(counts.makers)
        np.savez(file, sha256=counts.sha256, counts=counts.counts, makers=makers)
        store.put(_key(kind), content_of(file))


def _key(kind: dict[str, Any]) -> str:
    return f"features/counts/{short_hash(kind)}.npz"


def content_of(file: IO[bytes]) -> mmap.mmap:
    """Return the content of a temporary file, mapped: it takes no memory of the process."""
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
