"""Two drivers on one sweep: the second is refused; the lease of a dead driver is taken over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.storage import lock
from harness.storage.lock import Holder, SweepLock
from harness.storage.store import Store

pytestmark = pytest.mark.guarantee(
    "Faults",
    "A second driver refuses and names the first; a dead one's sweep is taken over",
)

HOLD = """
import sys
from harness.storage.lock import SweepLock
from harness.storage.store import Store
with SweepLock(Store(sys.argv[1]), "paper", beat=0.05):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def hold(store: Store) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process that holds the sweep until its input ends."""
    holders = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, store.root]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        holders.append(holder := subprocess.Popen(command, text=True, **pipes))
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process believes to be on another host."""
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")


def _put_dead(store: Store, **changes: object) -> Holder:
    """The lease of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = Holder().model_copy(update={"pid": ended.pid, **changes})
    store.put("paper/lock.json", dead.model_dump_json().encode())
    return dead


def _holder(store: Store) -> Holder:
    return Holder.model_validate_json(store.get("paper/lock.json"))


def test_the_second_driver_is_refused_naming_the_first(store: Store, hold) -> None:
    first = hold()
    with pytest.raises(UserError) as refused:
        SweepLock(store, "paper").__enter__()
    assert f"being run by process {first.pid} of " in str(refused.value)
    assert f" on {socket.gethostname()}, since " in str(refused.value)
    with SweepLock(store, "another"):
        pass
    first.communicate("")
    with SweepLock(store, "paper"):
        pass


def test_a_killed_driver_on_this_host_is_replaced_at_once(store: Store, hold) -> None:
    first = hold()
    first.kill()
    first.communicate()
    notices: list[str] = []
    with SweepLock(store, "paper", notice=notices.append):
        assert _holder(store).pid == os.getpid()
    assert [notice.rpartition(": ")[2] for notice in notices] == ["taking over"]


def test_a_damaged_lease_is_one_line(store: Store) -> None:
    store.put("paper/lock.json", b"")
    with pytest.raises(UserError, match=r"paper/lock\.json is damaged: remove it if the sweep"):
        SweepLock(store, "paper").__enter__()


def test_a_process_number_in_use_again_is_not_the_driver(store: Store) -> None:
    dead = _put_dead(store, pid=os.getppid())
    notices: list[str] = []
    with SweepLock(store, "paper", beat=0.05, patience=0.2, notice=notices.append):
        assert _holder(store).token != dead.token
    assert "waiting up to 0 s for its heartbeat" in notices[0]
    assert "is dead: taking over" in notices[1]


def test_containers_that_share_a_hosts_name_share_no_processes(store: Store) -> None:
    _put_dead(store, pids="pid:[another]")
    notices: list[str] = []
    with SweepLock(store, "paper", beat=0.05, patience=0.2, notice=notices.append):
        assert len(notices) == 2, "not taken for dead because its number is unknown here"


def test_a_living_driver_on_another_host_has_a_heartbeat(
    store: Store, hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hold()
    _elsewhere(monkeypatch)
    with pytest.raises(UserError, match=f"being run by process {first.pid}"):
        SweepLock(store, "paper", beat=0.1, patience=60).__enter__()


def test_who_lets_go_while_it_is_watched_is_succeeded(
    store: Store, hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hold()
    first.send_signal(signal.SIGSTOP)
    _elsewhere(monkeypatch)

    def end(_: str) -> None:
        first.send_signal(signal.SIGKILL)
        first.wait()
        store.delete("paper/lock.json")

    with SweepLock(store, "paper", beat=0.05, patience=60, notice=end):
        assert _holder(store).host == "elsewhere"


def test_a_silent_driver_on_another_host_is_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, reasons = threading.Event(), []

    def learn(reason: str) -> None:
        reasons.append(reason)
        lost.set()

    silent = SweepLock(store, "paper", beat=0.5, lost=learn)
    with silent:
        _elsewhere(monkeypatch)
        # Its heartbeats do not arrive: it cannot reach the storage for a while.
        monkeypatch.setattr(silent, "_lease", lambda: pytest.fail("wrote over its successor"))
        with SweepLock(store, "paper", beat=0.05, patience=0.2, notice=lambda _: None) as heir:
            assert lost.wait(30)
            assert _holder(store).token == heir._me.token
            silent.__exit__(None, None, None)
            assert _holder(store).token == heir._me.token, "released what it did not hold"
        monkeypatch.undo()
    assert f"paper was taken over by process {os.getpid()} of " in reasons[0]


def test_of_several_who_find_a_dead_driver_one_wins(store: Store) -> None:
    _put_dead(store)
    start, ended, outcomes = threading.Barrier(8), threading.Barrier(8, timeout=60), []

    def race() -> None:
        start.wait()
        try:
            with SweepLock(store, "paper", beat=0.2, notice=lambda _: None):
                outcomes.append("won")
                ended.wait()  # however slow the others are: a lock let go is free
        except UserError:
            outcomes.append("refused")
            ended.wait()

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["won"]


def test_two_that_both_believe_to_hold_it_are_one_a_beat_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was paused between finding a dead driver and replacing its lease."""
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)
    lost = threading.Event()
    with SweepLock(store, "paper", beat=0.05, lost=lambda _: lost.set()):
        late = SweepLock(store, "paper", beat=0.05, lost=lambda _: pytest.fail("both ended"))
        late._me = Holder()
        late._take_over(late._me)
        late._thread.start()
        assert lost.wait(30)
        late.__exit__(None, None, None)


def test_the_lease_names_its_holder_and_goes_with_it(store: Store) -> None:
    with SweepLock(store, "paper"):
        assert (_holder(store).pid, _holder(store).host) == (os.getpid(), socket.gethostname())
        assert store.list("paper") == ["paper/lock.json"]
    assert store.list("paper") == []
