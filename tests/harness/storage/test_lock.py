"""Two drivers on one sweep: the second refuses; the lock of a dead driver is taken over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.storage import lock
from harness.storage.lock import Holder, SweepLock
from harness.storage.store import Store

HOLD = """
import sys
from harness.storage.lock import SweepLock
from harness.storage.store import Store
with SweepLock(Store(sys.argv[1]), "paper"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process believes to be on another host."""
    monkeypatch.setattr(lock, "_machine", lambda: "elsewhere")


def _hold(store: Store) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_driver_refuses_naming_the_first(store: Store) -> None:
    first = _hold(store)
    with pytest.raises(UserError) as refused, SweepLock(store, "paper"):
        pass
    assert f"process {first.pid} of " in str(refused.value)
    assert f" on {socket.gethostname()}, since " in str(refused.value)
    with SweepLock(store, "another"):
        pass
    first.communicate("")
    with SweepLock(store, "paper"):
        pass


def test_a_killed_driver_on_this_host_is_seen_at_once(store: Store) -> None:
    first = _hold(store)
    first.kill()
    first.communicate()
    started = time.monotonic()
    with SweepLock(store, "paper"):
        assert time.monotonic() - started < 1


def test_a_process_number_that_came_again_is_not_the_driver(store: Store) -> None:
    dead = lock._me().model_copy(update={"born": "1"})
    store.put("paper/lock/000004.json", dead.model_dump_json().encode())
    with SweepLock(store, "paper"):
        assert store.list("paper/lock") == ["paper/lock/000005.json"]


def test_a_living_driver_on_another_host_is_recognised_by_its_beat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SweepLock(store, "paper", beat=0.05):
        _elsewhere(monkeypatch)
        with pytest.raises(UserError, match=f"being run by process {os.getpid()}"):
            SweepLock(store, "paper", beat=0.1, patience=10).__enter__()


def test_a_dead_driver_on_another_host_is_replaced_and_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, notices = threading.Event(), []
    silent = SweepLock(store, "paper", beat=0.5, lost=lambda _: told.set())
    with silent:
        _elsewhere(monkeypatch)
        # Its signs of life do not arrive: the storage is cut off from it for a while.
        monkeypatch.setattr(silent, "_text", lambda: pytest.fail("wrote over its successor"))
        heir = SweepLock(store, "paper", beat=0.05, patience=0.2, notice=notices.append)
        with heir:
            assert told.wait(5)
            assert store.list("paper/lock") == ["paper/lock/000002.json"]
        monkeypatch.undo()
    assert "looking 0 s for a sign of life" in notices[0]
    assert "is dead: taking over" in notices[1]


def test_of_two_who_find_a_dead_driver_one_wins(store: Store) -> None:
    dead = lock._me().model_copy(update={"born": "1"})
    store.put("paper/lock/000001.json", dead.model_dump_json().encode())
    start, told, outcomes = threading.Barrier(8), threading.Barrier(8, timeout=60), []

    def race() -> None:
        start.wait()
        try:
            with SweepLock(store, "paper"):
                outcomes.append("won")
                told.wait()  # however slow the others are: a lock let go is free
        except UserError:
            outcomes.append("refused")
            told.wait()

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["won"]


def test_who_slept_through_two_successions_does_not_hold_the_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = SweepLock(store, "paper")
    create = Store.create

    def others_first(store: Store, key: str, data: bytes) -> bool:
        monkeypatch.undo()
        with SweepLock(store, "paper"):
            pass
        holders.append(SweepLock(store, "paper").__enter__())
        return create(store, key, data)

    holders: list[SweepLock] = []
    monkeypatch.setattr(Store, "create", others_first)
    with pytest.raises(UserError, match=f"just been begun by process {os.getpid()}"):
        late.__enter__()
    assert store.list("paper/lock") == ["paper/lock/000002.json"]
    holders[0].__exit__(None, None, None)


def test_the_file_names_the_holder(store: Store) -> None:
    with SweepLock(store, "paper"):
        holder = Holder.model_validate_json(store.get("paper/lock/000001.json"))
        assert (holder.pid, holder.status) == (os.getpid(), "held")
    assert Holder.model_validate_json(store.get("paper/lock/000001.json")).status == "released"


def test_a_damaged_lock_is_named(store: Store) -> None:
    store.put("paper/lock/000004.json", b'{"token": "a", "us')
    with pytest.raises(UserError, match=r"000004\.json: no whole lock; remove it"):
        SweepLock(store, "paper").__enter__()
