"""A sweep's small files in a local folder, for those who read folders and know no store."""

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
        there = [key.removeprefix(f"{name}/") for key in store.list(name)]
        before = [folder / inner for inner in there if _top(inner) in WRITTEN]
        for path in before:
            _write(path, b"")
        read = (f"{name}/{inner}" for inner in there if _is_read(inner))
        for key, content in store.get_all(read):
            if content is not None:  # else it has gone a moment ago
                _write(folder / key.removeprefix(f"{name}/"), content)
        yield folder
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder).as_posix()
            if _top(inner) in WRITTEN and path.is_file() and path.stat().st_size:
                store.put(f"{name}/{inner}", path.read_bytes())
        for path in before:
            if not path.exists():
                store.delete(f"{name}/{path.relative_to(folder).as_posix()}")


def _is_read(inner: str) -> bool:
    top = _top(inner)
    return top not in WRITTEN and (top in READ_FOLDERS or inner.endswith(READ))


def _top(inner: str) -> str:
    """The folder of the sweep that a file lies in, or the file itself."""
    return inner.partition("/")[0]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
