"""Keep a run's two newest checkpoints; fall back to the older if the newer is damaged."""

from typing import Any

from featgan import checkpoint
from harness.storage.store import Store

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class CheckpointStore:
    """Checkpoints in the folder of one run; another run's are ignored."""

    def __init__(self, store: Store, folder: str, signature: str) -> None:
        self._store, self._signature = store, signature
        self._latest, self._previous = f"{folder}/{LATEST}", f"{folder}/{PREVIOUS}"
        self._latest_is_whole = False

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is undamaged, None without any."""
        for key in (self._latest, self._previous):
            try:
                state = checkpoint.load(self._store.get(key))
            except (FileNotFoundError, checkpoint.Damaged):
                continue
            if state.get("signature") == self._signature:
                self._latest_is_whole = key == self._latest
                return state
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; keep the newest undamaged one as the previous."""
        data = checkpoint.dump({"signature": self._signature} | state)
        if self._latest_is_whole:
            self._store.move(self._latest, self._previous)
        self._store.put(self._latest, data)
        self._latest_is_whole = True
