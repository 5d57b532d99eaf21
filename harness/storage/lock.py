"""A lease on a sweep: one driver at a time, recognised as alive by its heartbeat.

The lease is one file, created exclusively. A driver whose lease shows a dead holder writes its own
over it and holds the sweep only if that is still there a moment later, so of several one wins. A
holder that only seemed dead finds the other's lease at its next heartbeat.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, Field, ValidationError

from featgan.errors import UserError
from harness.storage.store import Store

SETTLE_SECONDS = 0.5
"""How long a lease that was taken over must stay, before it counts."""


class Holder(BaseModel):
    """The driver that holds a sweep, by default this process; the content of the lease."""

    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    user: str = Field(default_factory=getpass.getuser)
    host: str = Field(default_factory=lambda: socket.gethostname())
    pids: str = os.path.basename(os.path.realpath("/proc/self/ns/pid"))
    """PID namespace: containers of one host may share its name, but not its process numbers."""
    pid: int = Field(default_factory=os.getpid)
    since: str = Field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S UTC}")
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"


@dataclass
class SweepLock:
    """Hold a sweep within a `with`; UserError where another driver that is alive holds it.

    `lost` is called, in a thread, where another driver has taken the sweep over: this one could
    not reach the storage, or was paused, for so long that it looked dead.
    """

    store: Store
    sweep: str
    _: KW_ONLY
    notice: Callable[[str], None] = print
    lost: Callable[[str], None] = print
    waits: bool = False
    """Whether to wait for another driver that is alive, instead of raising an error."""
    beat: float = 5.0
    """Seconds between two heartbeats."""
    patience: float = 45.0
    """A holder without a heartbeat for so many seconds is dead."""

    def __post_init__(self) -> None:
        self._key = f"{self.sweep}/lock.json"
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True, name="sweep-lock")

    def __enter__(self) -> SweepLock:
        self._me = Holder()
        while not self.store.create(self._key, self._lease()):
            holder = self._read()
            if holder is not None and self._is_dead(holder):
                self._take_over(holder)
                break
        with suppress(OSError):
            self.store.remove_temporary_files(self.sweep)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        # If the storage fails, each kind in its own way, the lease expires with this process.
        with suppress(Exception):
            if self._is_mine(self._read()):
                self.store.delete(self._key)

    def _is_dead(self, holder: Holder) -> bool:
        """Return True for a dead holder, False for one that has let go; UserError if it is alive.

        Only changes of the heartbeat count, not the time in it: clocks of two hosts may differ.
        """
        if (holder.host, holder.pids) == (self._me.host, self._me.pids):
            try:
                os.getpgid(holder.pid)
            except ProcessLookupError:
                return True
        self.notice(
            f"{self.sweep} is locked by {holder}; "
            f"waiting up to {self.patience:.0f} s for its heartbeat"
            + (", and for its end" if self.waits else "")
        )
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(self.beat)
            if (now := self._read()) is None:
                return False
            if now != holder and not self.waits:
                raise UserError(
                    f"sweep {self.sweep} is being run by {now}: wait for it to finish, or stop it "
                    "there"
                )
            if now != holder:
                holder, deadline = now, time.monotonic() + self.patience
        return True

    def _take_over(self, dead: Holder) -> None:
        """Replace a dead holder's lease; UserError where another driver was faster."""
        self.notice(f"{dead} is dead: taking over")
        self.store.put(self._key, self._lease())
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine(winner := self._read()):
            raise UserError(f"sweep {self.sweep} has just been taken over by {winner}")

    def _keep_alive(self) -> None:
        """Write a heartbeat every few seconds, until released or replaced."""
        while not self._released.wait(self.beat):
            # The storage may fail for a while, each kind in its own way; the sweep goes on.
            with suppress(Exception):
                holder = self._read()
                if holder is not None and not self._is_mine(holder):
                    self.lost(f"sweep {self.sweep} was taken over by {holder}")
                    return
                self._me.beat += 1
                self.store.put(self._key, self._lease())

    def _read(self) -> Holder | None:
        """Return the holder; None where nobody holds the sweep."""
        try:
            return Holder.model_validate_json(self.store.get(self._key))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            where = self.store.join(self._key)
            raise UserError(f"{where} is damaged: remove it if the sweep is not running") from error

    def _is_mine(self, holder: Holder | None) -> bool:
        return holder is not None and holder.token == self._me.token

    def _lease(self) -> bytes:
        return self._me.model_dump_json(indent=1).encode()
