"""Progress on the terminal: a live table, or else a line from time to time.

Decides nothing. Prints to standard error, so that standard output holds the tables alone.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from harness.storage.redaction import redacted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

PLAIN_SECONDS = 10.0
"""Minimum time between two progress lines without a terminal."""
LIVE_SECONDS = 0.2
"""Minimum time between two updates of a terminal."""


class Progress(NamedTuple):
    """The progress of a run under way."""

    share: float = 0.0
    """Share of its epochs that is done, 0..1."""
    best_score: float = -math.inf
    host: str = ""


@dataclass
class Counts:
    """Runs of the sweep by their outcome, and the progress of this call's work."""

    total: int
    done: int = 0
    failed: int = 0
    running: dict[str, Progress] = field(default_factory=dict)
    share: float = 0.0
    """Share of this call's work that is done, 0..1."""
    best_score: float = -math.inf
    best: str = ""
    """The best score so far with its run and protocol."""

    def add_score(self, score: float | None, where: str, protocol: str) -> None:
        """Keep a run's best score if it is the best of all."""
        if score is not None and score > self.best_score:
            self.best_score, self.best = score, f"{score:.3f} ({where}; {protocol})"


@dataclass
class Screen:
    """Lines that stay, and on a terminal a live display below them, until `end`."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    _live: Live | None = None
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _counted: str = ""
    _before: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the live display, which holds locks: Tune pickles its callbacks and this."""
        return {**self.__dict__, "_live": None}

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with suppress(OSError):  # the terminal may be closed; runs must go on
            if self._live:
                self._live.console.out(redacted(text), highlight=False)
            else:
                print(redacted(text), file=self.out, flush=True)

    def features(self, what: str, done: int, total: int | None) -> None:
        """Show the progress of counting, or without a total the line itself.

        Time left is estimated from the images counted in this call.
        """
        if total is None:
            self.say(what)
            return
        if what != self._counted:
            self._counted, self._before = what, done
            self.begin()
        line = f"{what}: {done:,} of {total:,} images"
        if self._before < done < total:
            line += f", {self._left((done - self._before) / (total - self._before))} left"
        self._show(line)

    def runs(self, counts: Counts, last: bool = False) -> None:
        """Show the progress of the runs, and on a terminal a table of those under way."""
        parts = [f"runs: {counts.done} of {counts.total} done", f"{len(counts.running)} running"]
        if not counts.running and counts.done + counts.failed < counts.total:
            parts[-1] = "none running: the others wait for a node"
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        if 0 < counts.share < 1:
            parts.append(f"{self._left(counts.share)} left")
        if counts.best:
            parts.append(f"best {counts.best}")
        self._show(", ".join(parts), counts.running, force=last)

    def begin(self) -> None:
        """Start the clock for the time left."""
        self._started = time.monotonic()

    def is_due(self) -> bool:
        """Return whether progress would be shown now, so that callers can skip costly updates."""
        pause = LIVE_SECONDS if self._is_live() else PLAIN_SECONDS
        return time.monotonic() - self._shown >= pause

    def end(self) -> None:
        """Keep what was shown last; later lines come below it."""
        live, self._live = self._live, None
        if live:
            with suppress(OSError):
                live.stop()

    def _is_live(self) -> bool:
        return self.out.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")

    def _left(self, share: float) -> str:
        seconds = (time.monotonic() - self._started) * (1 - share) / share
        return str(timedelta(seconds=round(seconds)))

    def _show(
        self, line: str, running: Mapping[str, Progress] = MappingProxyType({}), force: bool = False
    ) -> None:
        """Show a line and the runs under way in the place of those before, when they are due."""
        if not force and not self.is_due():
            return
        self._shown = time.monotonic()
        with suppress(OSError):
            if not self._is_live():
                print(line, file=self.out, flush=True)
                return
            # here, so that --help and a refused file do not wait for it
            from rich.console import Console, Group
            from rich.live import Live
            from rich.text import Text

            if self._live is None:
                console = Console(file=self.out, force_terminal=True)
                self._live = Live(
                    console=console,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            rows = [_table(running)] if running else []
            self._live.update(Group(Text(line), *rows), refresh=True)


def _table(running: Mapping[str, Progress]) -> Table:
    """Return a table with a row for each run under way."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("run under way", no_wrap=True)
    table.add_column("done", justify="right")
    table.add_column("best score", justify="right")
    table.add_column("on")
    for name, run in sorted(running.items()):
        score = f"{run.best_score:.3f}" if math.isfinite(run.best_score) else ""
        table.add_row(Text(name), f"{run.share:.0%}", score, Text(run.host))
    return table
