"""A run's two newest checkpoints, of which one is always undamaged."""

from __future__ import annotations

from pathlib import Path

from harness.runs.checkpoint_store import LATEST, PREVIOUS, CheckpointStore
from harness.storage.store import Store


def test_the_newest_undamaged_checkpoint_of_this_run_is_loaded(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    ours = CheckpointStore(store, "r", "0a1b")
    assert ours.load() is None
    ours.save({"epoch": 1})
    ours.save({"epoch": 2})
    assert CheckpointStore(store, "r", "0a1b").load() == {"signature": "0a1b", "epoch": 2}
    assert CheckpointStore(store, "r", "2c3d").load() is None

    store.put(f"r/{LATEST}", b"cut")
    whole = store.get(f"r/{PREVIOUS}")
    again = CheckpointStore(store, "r", "0a1b")
    assert again.load() == {"signature": "0a1b", "epoch": 1}
    again.save({"epoch": 3})
    assert store.get(f"r/{PREVIOUS}") == whole, "a damaged one must not replace an undamaged one"
    assert again.load() == {"signature": "0a1b", "epoch": 3}
