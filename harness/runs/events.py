"""Where TensorBoard's file of a run is written: the run's folder, or a copy of it on a bucket."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from harness.storage.store import Store


class EventFolder:
    """A local folder with a run's event files; a copy goes to the bucket with `upload`."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._replaced: list[str] = []
        if store.is_local:
            self.path = Path(store.join(key))
            return
        self.path = Path(tempfile.mkdtemp(prefix="featgan-events-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._replaced = [key for key in store.list(key) if "events.out.tfevents" in key]
        for old in self._replaced:
            (self.path / old.rpartition("/")[2]).write_bytes(store.get(old))

    def upload(self) -> None:
        """Bring a bucket up to date; the files of before go once the new one is there."""
        if self._store.is_local:
            return
        for path in self.path.glob("events.out.tfevents*"):
            self._store.put(f"{self._key}/{path.name}", path.read_bytes())
        for old in self._replaced:
            self._store.delete(old)
        self._replaced = []
