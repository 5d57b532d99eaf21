"""A local copy of a sweep's small files, for code that works on folders."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.store import Store

READ = ("run.json", "sweep.json", "rescored.json", "failures.txt", ".png")
READ_FOLDERS = ("groups", "data", "real")
WRITTEN = ("tables", "figures", "report.html")


@contextmanager
def mirrored(store: Store, name: str) -> Iterator[Path]:
    """Yield the folder of a sweep: itself on local disk, else a copy of what tables need.

    What is below `tables/` and `figures/` and in `report.html` is written back, and what is removed
    there is removed from the store.
    """
    if store.is_local:
        yield Path(store.join(name))
        return
    with tempfile.TemporaryDirectory(prefix="featgan-mirror-") as scratch:
        folder = Path(scratch, name)
        folder.mkdir()
        copied = [key for key in store.list(name) if _is_copied(key)]
        for key, content in store.get_all(copied):
            if content is not None:  # else removed a moment ago
                Path(scratch, key).parent.mkdir(parents=True, exist_ok=True)
                Path(scratch, key).write_bytes(content)
        yield folder
        files = {path.relative_to(scratch).as_posix(): path for path in folder.rglob("*")}
        made = {key: path for key, path in files.items() if _top(key) in WRITTEN and path.is_file()}
        for key, path in made.items():
            store.put(key, path.read_bytes())
        for key in set(copied) - made.keys():
            if _top(key) in WRITTEN:
                store.delete(key)


def _is_copied(key: str) -> bool:
    return _top(key) in (*WRITTEN, *READ_FOLDERS) or key.endswith(READ)


def _top(key: str) -> str:
    """Return the file or folder of the sweep that a key lies in."""
    return key.split("/")[1]
