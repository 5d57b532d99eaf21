"""The table of earlier counts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from harness.counting.cache import NOT_COUNTED, EarlierCounts, load_counts, save_counts
from harness.storage.store import Store

KIND = {"weights": "random", "input_size": 32}
CPU, GPU = {"device": "CPU"}, {"device": "GPU"}


def counts_of(*digests: bytes) -> EarlierCounts:
    """The counts 5, 6, … of these digests."""
    return EarlierCounts().merged(np.array(digests, "S32"), np.arange(5, 5 + len(digests)), [CPU])


def test_digests_that_end_in_zeros_differ() -> None:
    digests = [b"\x01" + bytes(31), b"\x01\x00\x02" + bytes(29), bytes(32)]
    counts = counts_of(*digests)

    assert [counts.get(digest) for digest in digests] == [5, 6, 7]
    assert counts.get(b"\x02" + bytes(31)) == NOT_COUNTED


def test_of_several_counts_the_first_is_kept() -> None:
    one, two = bytes(31) + b"1", bytes(31) + b"2"
    merged = counts_of(one).merged(np.array([two, one], "S32"), np.array([8, 9]), [GPU, CPU])

    assert [merged.get(digest) for digest in (one, two)] == [5, 8]
    assert merged.makers == [CPU, GPU]


def test_counts_are_known_by_the_way_they_were_made(tmp_path: Path) -> None:
    store, digest = Store(str(tmp_path)), bytes(31) + b"1"
    assert len(load_counts(store, KIND).counts) == 0
    save_counts(store, KIND, counts_of(digest, bytes(32)))
    found = load_counts(store, KIND)

    assert ([found.get(digest), found.get(bytes(32))], found.makers) == ([5, 6], [CPU])
    assert len(load_counts(store, KIND | {"input_size": 64}).counts) == 0
    save_counts(store, KIND, EarlierCounts())
    assert len(load_counts(store, KIND).counts) == 0


def test_no_count_of_a_damaged_table_is_taken(tmp_path: Path) -> None:
    store, chance = Store(str(tmp_path)), random.Random(0)
    save_counts(store, KIND, counts_of(*(bytes(31) + b"%d" % n for n in range(8))))
    (key,) = store.list("features/counts")
    whole = store.get(key)
    for _ in range(60):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        store.put(key, bytes(content))
        assert load_counts(store, KIND).counts.tolist() in ([], [*range(5, 13)])
    for content in (b"", whole[:-9], whole[: len(whole) // 2]):
        store.put(key, content)
        assert len(load_counts(store, KIND).counts) == 0
