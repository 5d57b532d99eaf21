from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.counting.cache import NOT_COUNTED, Known
from harness.counting.shards import Parts, _length
from harness.storage.store import Store


def batch(
    *indices: int, bad: tuple[int, ...] = (), unreadable: tuple[int, ...] = ()
) -> dict[str, np.ndarray]:
    """Image i is filled with i, has the digest i and the count 10 i."""
    return {
        "index": np.array(indices),
        "sha256": np.array([f"{i:064x}" for i in indices], dtype=object),
        "problem": np.array(
            ['torn, "so"\n' if i in (*bad, *unreadable) else "" for i in indices], dtype=object
        ),
        "unreadable": np.array([i in unreadable for i in indices]),
        "count": np.array([-1 if i in (*bad, *unreadable) else 10 * i for i in indices], np.int16),
        "image": np.array(indices, np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), np.uint8),
    }


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("harness.counting.shards.SMALLEST", 3)
    return Store(str(tmp_path))


def test_results_come_in_any_order_and_finished_parts_remain(store: Store) -> None:
    parts = Parts(store, "features/x", 8, 4)
    parts.add(batch(7, 0, 5))
    assert store.list() == []
    parts.add(batch(6, 2, 1, bad=(1,)))  # finishes 0..2 and 6..7; 3..5 waits
    assert store.list() == ["features/x/parts/00000.npz", "features/x/parts/00002.npz"]

    resumed = Parts(store, "features/x", 8, 4)
    assert resumed.missing().tolist() == [3, 4, 5]
    assert resumed.problems == {1: 'torn, "so"\n'}
    resumed.add(batch(4, 3, 5))
    assert resumed.counts.tolist() == [0, -1, 20, 30, 40, 50, 60, 70]
    assert resumed.sha256[7].decode() == f"{7:064x}"
    images = np.concatenate([images for _, images in resumed])
    assert [rows.start for rows, _ in resumed] == [0, 3, 6]
    assert images[:, 0, 0, 0].tolist() == list(range(8))


def test_unreadable_images_of_a_part_are_read_again(store: Store) -> None:
    parts = Parts(store, "features/x", 3, 4)
    parts.add(batch(0, 1, 2, bad=(0,), unreadable=(1,)))
    assert parts.missing().tolist() == []  # by this count it is not
    assert (sorted(parts.problems), parts.unreadable) == ([0, 1], {1})

    again = Parts(store, "features/x", 3, 4)
    assert again.missing().tolist() == [1]
    assert [*again.problems] == [0]
    again.add(batch(1))
    mended = Parts(store, "features/x", 3, 4)
    assert mended.missing().tolist() == []
    assert mended.counts.tolist() == [-1, 10, 20]
    ((_, images),) = mended
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_an_image_comes_once(store: Store) -> None:
    parts = Parts(store, "features/x", 8, 4)
    parts.add(batch(4))
    with pytest.raises(RuntimeError, match="image 4 was counted twice"):
        parts.add(batch(4))


def test_what_an_abandoned_count_left_is_known(store: Store) -> None:
    Parts(store, "features/x", 8, 4).add(batch(0, 1, 2, 3, bad=(1,)))
    known = Known.merged(map(Known.of, Parts.left_in(store, "features/x")))

    assert [known.get(bytes.fromhex(f"{i:064x}")) for i in range(4)] == [
        0,
        NOT_COUNTED,
        20,
        NOT_COUNTED,
    ]


@pytest.mark.parametrize(
    ("total", "size", "length"),
    [(1_000, 16, 256), (1_000_000, 16, 1954), (1_000, 256, 256), (1_000_000, 256, 341)],
)
def test_parts_are_few_but_small(total: int, size: int, length: int) -> None:
    assert _length(total, size) == length
    assert length * 3 * size**2 <= 64 * 2**20


@pytest.mark.parametrize("before", [1, 2])
def test_a_part_of_another_length_is_counted_again(
    before: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.counting.shards.LARGEST", before * 3 * 4 * 4)
        Parts(store, "features/x", 3, 4).add(batch(0, 1, 2))
    assert len(store.list()) == -(-3 // before)
    assert pd.concat(Parts.left_in(store, "features/x"))["feature_count"].tolist() == [0, 10, 20]
    again = Parts(store, "features/x", 3, 4)
    assert again.missing().tolist() == [0, 1, 2]
    again.add(batch(2, 0, 1))
    assert [len(images) for _, images in again] == [3]
