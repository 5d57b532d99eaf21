"""What the driver does where its storage fails: locks, moves."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from harness.storage import store as module
from harness.storage.lock import SweepLock
from harness.storage.store import Store


class EndpointConnectionError(Exception):
    """As botocore's, which is no OSError."""

    __module__ = "botocore.exceptions"


def test_the_end_of_a_sweep_survives_a_bucket_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise EndpointConnectionError

    with SweepLock(Store(str(tmp_path)), "s"):
        monkeypatch.setattr(Store, "put", away)


def test_a_move_waits_for_a_storage_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time it has moved the file, but the answer is lost."""
    real, calls = os.replace, [0]

    def replace(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            real(*arguments)
        if calls[0] <= 2:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        real(*arguments)

    store = Store(str(tmp_path))
    store.put("a", b"new")
    store.put("b", b"old")
    monkeypatch.setattr(module.os, "replace", replace)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    store.move("a", "b")
    assert calls == [3]
    assert store.list() == ["b"]
    assert store.get("b") == b"new"
    with pytest.raises(FileNotFoundError):
        store.move("a", "c")
