"""The two newest checkpoints of a run: one that is damaged costs time, and no more."""

from __future__ import annotations

from typing import Any

from featgan import checkpoint
from harness.storage.store import Store

LATEST, BEFORE = "checkpoint.pt", "checkpoint.previous.pt"


class Checkpoints:
    """Those in the folder of one run; another run's are not used."""

    def __init__(self, store: Store, folder: str, signature: str) -> None:
        self._store, self._signature = store, signature
        self._latest, self._before = f"{folder}/{LATEST}", f"{folder}/{BEFORE}"
        self._latest_whole = False

    def load(self) -> dict[str, Any] | None:
        """The state of the newest that is whole; None without any."""
        for key in (self._latest, self._before):
            try:
                state = checkpoint.load(self._store.get(key))
            except (FileNotFoundError, checkpoint.Damaged):
                continue
            if state.get("signature") == self._signature:
                self._latest_whole = key == self._latest
                return state
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; the last whole one is kept."""
        data = checkpoint.dump({"signature": self._signature} | state)
        if self._latest_whole:
            self._store.move(self._latest, self._before)
        self._store.put(self._latest, data)
        self._latest_whole = True
