"""A local copy of a sweep's small files, for code that works on folders."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featgan.digests import sha256_of_file
from harness.storage.store import Store

COPIED = (".json", ".txt", ".csv", ".md", ".tex", ".html", ".png", ".svg")
"""Endings of records, tables and pictures; checkpoints and generators stay in the store."""


@contextmanager
def mirrored(store: Store, name: str) -> Iterator[Path]:
    """Yield the folder of a sweep: itself on local disk, else a copy of its small files.

    Files that were changed or added there are uploaded; those removed are removed from the store.
    """
    if store.is_local:
        yield Path(store.join(name))
        return
    with tempfile.TemporaryDirectory(prefix="featgan-mirror-") as scratch:
        folder = Path(scratch, name)
        folder.mkdir()
        for key, content in store.get_all(k for k in store.list(name) if k.endswith(COPIED)):
            if content is not None:  # else removed a moment ago
                Path(scratch, key).parent.mkdir(parents=True, exist_ok=True)
                Path(scratch, key).write_bytes(content)
        before = _digests(folder)
        yield folder
        after = _digests(folder)
        for path, _ in after.items() - before.items():
            store.put(path.relative_to(scratch).as_posix(), path.read_bytes())
        for path in before.keys() - after.keys():
            store.delete(path.relative_to(scratch).as_posix())


def _digests(folder: Path) -> dict[Path, str]:
    return {path: sha256_of_file(path) for path in folder.rglob("*") if path.is_file()}
