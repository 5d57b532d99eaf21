"""A sweep's small files in a local folder, for those who read folders and know no store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.store import Store

READ = ("run.json", "sweep.json", "rescored.json", "failures.txt", ".png")
READ_FOLDERS = ("groups", "data", "real", "ceilings")
WRITTEN = ("tables", "figures", "report.html")


@contextmanager
def mirrored(store: Store, name: str) -> Iterator[Path]:
    """The folder of a sweep: itself on local disk, else a copy of all that tables need.

    What the caller writes below `tables/` and `figures/`, and `report.html`, goes back. Of what
    is there already the copy has empty files of the same names: whoever removes one that is out
    of date removes it from the store.
    """
    if store.is_local:
        yield Path(store.join(name))
        return
    with tempfile.TemporaryDirectory(prefix="featgan-mirror-") as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        before = []
        for key in store.list(name):
            inner = key.removeprefix(f"{name}/")
            top, target = inner.partition("/")[0], folder / inner
            if top in WRITTEN:
                before.append(target)
            if top in WRITTEN or top in READ_FOLDERS or key.endswith(READ):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"" if top in WRITTEN else store.get(key))
        yield folder
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder).as_posix()
            if inner.partition("/")[0] in WRITTEN and path.is_file() and path.stat().st_size:
                store.put(f"{name}/{inner}", path.read_bytes())
        for path in before:
            if not path.exists():
                store.delete(f"{name}/{path.relative_to(folder).as_posix()}")
