"""Storage that fails: a store whose disk is full or closed, and botocore's error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from harness.storage.store import Store

NEVER = 10**9


class EndpointConnectionError(Exception):
    """botocore's error of this name, which is not an OSError."""

    __module__ = "botocore.exceptions"


class FailingStore(Store):
    """A store that raises `code` at the n-th write and all later ones, like a full or closed disk.

    A full disk can still delete; a closed one cannot.
    """

    def __init__(self, root: str, code: int = errno.ENOSPC, nth: int = NEVER) -> None:
        super().__init__(root)
        self.code, self.nth, self.writes = code, nth, 0

    def _writing(self, key: str) -> None:
        self.writes += 1
        if self.writes >= self.nth:
            raise OSError(self.code, os.strerror(self.code), self.join(key))

    def put(self, key: str, data: bytes) -> None:
        self._writing(key)
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._writing(key)
        return super().create(key, data)

    def delete(self, key: str) -> None:
        # a lock that cannot be released is left to expire
        if self.code != errno.ENOSPC and not key.endswith("lock.json"):
            self._writing(key)
        super().delete(key)

    def move(self, key: str, to: str) -> None:
        self._writing(to)
        super().move(key, to)


def check_every_write(
    work: Callable[[Store], Any], root: str, code: int, reset: Callable[[], None], step: int = 1
) -> tuple[Any, int]:
    """Let each `step`-th write of `work` fail with `code`; in the next attempt it must succeed.

    `reset` undoes what an attempt has written. Returns what `work` returns when nothing fails, as
    it must then, and the number of its writes.
    """
    reset()
    counting = FailingStore(root, code)
    expected = work(counting)
    for nth in range(1, counting.writes + 1, step):
        reset()
        with pytest.raises(OSError, match=os.strerror(code)):
            work(FailingStore(root, code, nth))
        store = Store(root)
        for key in store.list():
            if key.endswith("lock.json"):  # its holder would have ended
                store.delete(key)
        assert work(store) == expected, f"write {nth} of {counting.writes}"
    return expected, counting.writes
