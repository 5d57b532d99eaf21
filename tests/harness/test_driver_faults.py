"""The driver's locks and moves while its storage fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from faults import EndpointConnectionError

from harness.storage import store as module
from harness.storage.lock import SweepLock
from harness.storage.store import Store


def test_the_end_of_a_sweep_survives_an_unreachable_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> None:
        raise EndpointConnectionError

    with SweepLock(Store(str(tmp_path)), "s"):
        monkeypatch.setattr(Store, "put", unreachable)


@pytest.mark.guarantee(
    "Faults",
    "Unreachable storage is not treated as empty; after two minutes the run or command ends "
    "with one line",
)
def test_a_move_waits_for_unreachable_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt moves the file, but its answer is lost."""
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
    monkeypatch.setattr("time.sleep", lambda _: None)
    store.move("a", "b")
    assert calls == [3]
    assert store.list() == ["b"]
    assert store.get("b") == b"new"
    with pytest.raises(FileNotFoundError):
        store.move("a", "c")
