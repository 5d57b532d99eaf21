from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.counting.cache import MAKERS, NOT_COUNTED, Known, known_counts
from harness.counting.shards import Parts
from harness.storage.sealed import seal
from harness.storage.store import Store

KIND = {"weights": "random", "input_size": 32}
CPU, GPU, OLD = {"device": "CPU"}, {"device": "GPU"}, {"device": "CPU", "torch": "1.0"}


def test_digests_that_end_in_zeros_are_told_apart() -> None:
    parts = [b"\x01" + bytes(31), b"\x01\x00\x02" + bytes(29), bytes(32)]
    table = {"sha256": [part.hex() for part in parts], "feature_count": [5, 6, 7]}
    known = Known.of(pd.DataFrame(table))

    assert [known.get(part) for part in parts] == [5, 6, 7]
    assert known.get(b"\x02" + bytes(31)) == NOT_COUNTED


def digest(number: int) -> str:
    return f"{number:064x}"


def put_whole(store: Store, key: str, count: int, kind: dict[str, Any], made: list[Any]) -> None:
    """A finished count of one image, whose digest is `count`."""
    table = pd.DataFrame({"sha256": [digest(count)], "feature_count": [count]}).to_parquet()
    store.put(f"{key}/features.parquet", table)
    store.put(f"{key}/dataset.json", seal({"table_sha256": hashlib.sha256(table).hexdigest()}))
    store.put(f"{key}/counting.json", seal(kind | {MAKERS: made}))


def put_interrupted(store: Store, key: str, counts: list[int], made: list[Any]) -> None:
    """A finished part, or none, of a count under way."""
    store.put(f"{key}/counting.json", seal(KIND | {MAKERS: made}))
    parts, total = Parts(store, key, 2, 4), len(counts)
    parts.add(
        {
            "index": np.arange(total),
            "sha256": np.array([digest(count) for count in counts], object),
            "problem": np.array([""] * total, object),
            "unreadable": np.zeros(total, bool),
            "count": np.array(counts),
            "image": np.zeros((total, 3, 4, 4), np.uint8),
        }
    )


def test_known_counts_say_what_they_were_made_with(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    put_whole(store, "features/a-0", 11, KIND, [OLD])
    put_whole(store, "features/b-0", 22, KIND | {"input_size": 64}, [GPU])
    put_interrupted(store, "features/c-0", [33, 44], [GPU, OLD])
    put_interrupted(store, "features/d-0", [55], [{"device": "of no finished part"}])
    known, made_with = known_counts(store, KIND, CPU)

    found = {count: known.get(bytes.fromhex(digest(count))) for count in (11, 22, 33, 44, 55)}
    assert found == {11: 11, 22: NOT_COUNTED, 33: 33, 44: 44, 55: NOT_COUNTED}
    assert made_with == [OLD, GPU, CPU]
