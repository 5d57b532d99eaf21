"""A run's event files on a bucket."""

from __future__ import annotations

from pathlib import Path

from harness.runs.events import EventFolder
from harness.storage.store import Store

OLD, NEW = "events.out.tfevents.1.a", "events.out.tfevents.2.a"


def test_old_event_files_go_once_the_new_one_is_there_and_the_copy_with_its_folder() -> None:
    store = Store("memory://events-test")
    store.put(f"s/runs/a/{OLD}", b"grids")
    store.put("s/runs/a/run.json", b"{}")
    events = EventFolder(store, "s/runs/a")
    assert (events.path / OLD).read_bytes() == b"grids"
    assert store.exists(f"s/runs/a/{OLD}"), "a kill before the first upload would lose it"

    (events.path / OLD).unlink()
    (events.path / NEW).write_bytes(b"all")
    events.upload()
    assert store.list("s/runs/a") == [f"s/runs/a/{NEW}", "s/runs/a/run.json"]
    assert store.get(f"s/runs/a/{NEW}") == b"all"

    path = events.path
    del events
    assert not path.exists()


def test_on_local_disk_they_lie_in_the_run_folder(tmp_path: Path) -> None:
    events = EventFolder(Store(str(tmp_path)), "s/runs/a")
    assert events.path == tmp_path / "s/runs/a"
