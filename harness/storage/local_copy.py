"""A local copy of a sweep's small files, for code that works on folders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.store import Store

READ = ("run.json", "sweep.json", "rescored.json", "failures.txt", ".png")
READ_FOLDERS = ("groups", "data", "real", "ceilings")
WRITTEN = ("tables", "figures", "report.html")


@contextmanager
def mirrored(store: Store, name: str) -> Iterator[Path]:
    """Yield the folder of a sweep: itself on local disk, else a copy of what tables need.

    What changes below `tables/` and `figures/`, and in `report.html`, is written back, and what
    is removed there is removed from the store.
    """
    if store.is_local:
        yield Path(store.join(name))
        return
    with tempfile.TemporaryDirectory(prefix="featgan-mirror-") as scratch:
        folder, before = Path(scratch, name), {}
        folder.mkdir()
        for key, content in store.get_all(key for key in store.list(name) if _is_copied(key)):
            if content is None:  # removed a moment ago
                continue
            Path(scratch, key).parent.mkdir(parents=True, exist_ok=True)
            Path(scratch, key).write_bytes(content)
            if _top(key) in WRITTEN:
                before[key] = content
        yield folder
        keys = {path.relative_to(scratch).as_posix(): path for path in folder.rglob("*")}
        after = {key: path for key, path in keys.items() if _top(key) in WRITTEN and path.is_file()}
        for key, path in sorted(after.items()):
            if path.read_bytes() != before.get(key):
                store.put(key, path.read_bytes())
        for key in before.keys() - after.keys():
            store.delete(key)


def _is_copied(key: str) -> bool:
    return _top(key) in (*WRITTEN, *READ_FOLDERS) or key.endswith(READ)


def _top(key: str) -> str:
    """Return the file or folder of the sweep that a key lies in."""
    return key.split("/")[1]
