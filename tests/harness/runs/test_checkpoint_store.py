"""Two checkpoints a run, of which one is always whole."""

from __future__ import annotations

from pathlib import Path

from harness.runs.checkpoint_store import BEFORE, LATEST, Checkpoints
from harness.storage.store import Store


def test_the_newest_whole_one_of_this_very_run_is_taken(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    ours = Checkpoints(store, "r", "0a1b")
    assert ours.load() is None
    ours.save({"epoch": 1})
    ours.save({"epoch": 2})
    assert Checkpoints(store, "r", "0a1b").load() == {"signature": "0a1b", "epoch": 2}
    assert Checkpoints(store, "r", "2c3d").load() is None

    store.put(f"r/{LATEST}", b"cut")
    whole = store.get(f"r/{BEFORE}")
    again = Checkpoints(store, "r", "0a1b")
    assert again.load() == {"signature": "0a1b", "epoch": 1}
    again.save({"epoch": 3})
    assert store.get(f"r/{BEFORE}") == whole, "what is damaged must not replace what is whole"
    assert again.load() == {"signature": "0a1b", "epoch": 3}
