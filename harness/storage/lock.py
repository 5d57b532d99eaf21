"""One driver a sweep: the second refuses, naming the first; a dead driver's lock is taken over.

A lock is a numbered file, and whoever creates the next number holds it: a file is never
deleted before the next exists, so two who find the same dead driver cannot both succeed.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from featgan.errors import UserError
from harness.storage.store import Store

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 45.0
"""A driver on another host that shows no sign of life for so long is dead."""


class Holder(BaseModel):
    """Who holds, or held, a sweep; the content of the lock's file."""

    model_config = ConfigDict(frozen=True)

    token: str
    user: str
    host: str
    machine: str
    """Tells whether process numbers can be compared: this boot of this kernel's namespace."""
    pid: int
    born: str
    """When the process began, in the kernel's own count: process numbers come again."""
    since: str
    beat: int = 0
    status: Literal["held", "released"] = "held"

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"


class SweepLock:
    """Hold a sweep within a `with`; UserError where another driver that lives holds it.

    `lost` is called, in a thread, where another driver has taken the sweep over: this one was
    cut off from the storage for so long that it looked dead.
    """

    def __init__(
        self,
        store: Store,
        sweep: str,
        *,
        notice: Callable[[str], None] = print,
        lost: Callable[[str], None] | None = None,
        beat: float = BEAT_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.store, self.sweep = store, sweep
        self.notice, self.lost = notice, lost
        self.beat, self.patience = beat, patience
        self._released = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._stay_alive, daemon=True, name="sweep-lock")

    def __enter__(self) -> SweepLock:
        number, holder = self._latest()
        if holder is not None and not self._is_free(number, holder):
            raise UserError(
                f"sweep {self.sweep} is being run by {holder}: wait for it, or end it there"
            )
        self._number, self._holder = number + 1, _me()
        created = self.store.create(self._key(self._number), self._text())
        latest, holder = self._latest()
        if latest != self._number or not created:
            # Whoever was slow may have found a number free that two others had passed meanwhile.
            if created:
                self.store.delete(self._key(self._number))
            raise UserError(f"sweep {self.sweep} has just been begun by {holder}")
        for old in self._numbers():
            if old < self._number:
                self.store.delete(self._key(old))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._released.set()
        self._thread.join()
        if self._is_lost:
            return
        self._holder = self._holder.model_copy(update={"status": "released"})
        # Else it goes stale with this process; a bucket's client has errors of its own.
        with suppress(Exception):
            self.store.put(self._key(self._number), self._text())

    def _is_free(self, number: int, holder: Holder) -> bool:
        """Whether the holder has let go or is dead; watches one on another host for a while."""
        if holder.status == "released":
            return True
        if holder.machine == _machine():
            return _born(holder.pid) != holder.born
        self.notice(
            f"sweep {self.sweep} is locked by {holder}; "
            f"looking {self.patience:.0f} s for a sign of life"
        )
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(self.beat)
            latest, now = self._latest()
            if latest != number or now is None or now.beat != holder.beat:
                return now is not None and now.status == "released"
        self.notice(f"{holder} is dead: taking over")
        return True

    def _stay_alive(self) -> None:
        """Show a sign of life every few seconds, until released or replaced."""
        while not self._released.wait(self.beat):
            # The storage may fail for a while, each kind in its own way; the sweep goes on.
            with suppress(Exception):
                number, heir = self._latest()
                if number > self._number:
                    self._is_lost = True
                    break
                self._holder = self._holder.model_copy(update={"beat": self._holder.beat + 1})
                self.store.put(self._key(self._number), self._text())
        if self._is_lost and self.lost is not None:
            self.lost(f"sweep {self.sweep} was taken over by {heir}")

    def _latest(self) -> tuple[int, Holder | None]:
        """The highest number and its holder; 0 and None before the first."""
        while numbers := self._numbers():
            key = self._key(numbers[-1])
            try:
                return numbers[-1], Holder.model_validate_json(self.store.get(key))
            except FileNotFoundError:  # replaced by a higher one a moment ago
                continue
            except ValidationError:
                raise UserError(
                    f"{self.store.join(key)}: no whole lock; remove it if no sweep runs"
                ) from None
        return 0, None

    def _numbers(self) -> list[int]:
        """The numbers of the locks there; a copy that somebody made is none."""
        names = (Path(key).stem for key in self.store.list(f"{self.sweep}/lock"))
        return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{6,}", name))

    def _key(self, number: int) -> str:
        return f"{self.sweep}/lock/{number:06d}.json"

    def _text(self) -> bytes:
        return self._holder.model_dump_json(indent=1).encode()


def _me() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        user=getpass.getuser(),
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def _machine() -> str:
    """This boot of this host, or of this container: where process numbers mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _born(pid: int) -> str:
    """The start time of a living process; empty for one that is dead."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
