"""Progress on the terminal: a live table, or else a line from time to time.

Decides nothing. Prints to standard error, so that standard output holds the tables alone.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

from harness.storage.redaction import redacted

PLAIN_SECONDS = 30.0
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
    waiting: Callable[[], str] = str
    """Return what the runs wait for, while none is running."""

    def add_score(self, score: float | None, where: str, protocol: str) -> None:
        """Keep a run's best score if it is the best of all."""
        if score is not None and score > self.best_score:
            how = re.sub(r"trained-cnn\S+", "small CNN", protocol)
            self.best_score, self.best = score, f"{score:.3f} ({where}; {how})"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as `4 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Screen:
    """Lines that stay, and on a terminal a live display below them, until `end`."""

    def __init__(self, out: TextIO | None = None) -> None:
        # here, so that --help and a refused file do not wait for it
        from rich.console import Console
        from rich.live import Live

        file = out or sys.stderr
        self._console = Console(file=file, force_terminal=file.isatty())
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._started, self._shown = time.monotonic(), 0.0
        self._counted, self._before = "", 0
        self._last = ""

    def __reduce__(self) -> tuple[type[Screen], tuple[()]]:
        """Pickle as a new one, as the display holds locks: Tune pickles its callbacks and this."""
        return Screen, ()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with suppress(OSError):  # the terminal may be closed; runs must go on
            self._console.out(redacted(text), highlight=False)

    def features(self, what: str, done: int, total: int | None, unit: str = "images") -> None:
        """Show the progress of counting, or without a total the line itself.

        Time left is estimated from what was counted in this call.
        """
        if total is None:
            self.say(what)
            return
        if new := what != self._counted:
            self._counted, self._before = what, done
            self.begin()
        line = f"{what}: {done:,} of {total:,} {unit}"
        if self._before < done < total:
            line += f", {self._left((done - self._before) / (total - self._before))} left"
        self._show(line, force=new)

    def runs(self, counts: Counts, last: bool = False) -> None:
        """Show the progress of the runs, and on a terminal a table of those under way.

        The `last` of several changes is shown at once on a terminal, whose display stays.
        """
        parts = [f"runs: {counts.done} of {counts.total} done", f"{len(counts.running)} running"]
        if not counts.running and counts.done + counts.failed < counts.total:
            parts[-1] = ": ".join(filter(None, ["none running", counts.waiting()]))
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        if 0 < counts.share < 1:
            parts.append(f"{self._left(counts.share)} left")
        if counts.best:
            parts.append(f"best {counts.best}")
        self._show(", ".join(parts), counts.running, force=last and self._console.is_interactive)

    def begin(self) -> None:
        """Start the clock for the time left."""
        self._started = time.monotonic()

    def is_due(self) -> bool:
        """Return whether progress would be shown now, so that callers can skip costly updates."""
        pause = LIVE_SECONDS if self._console.is_interactive else PLAIN_SECONDS
        return time.monotonic() - self._shown >= pause

    def end(self) -> None:
        """Keep what was shown last; later lines come below it."""
        with suppress(OSError):
            self._live.stop()

    def _left(self, share: float) -> str:
        return duration((time.monotonic() - self._started) * (1 - share) / share)

    def _show(
        self, line: str, running: Mapping[str, Progress] | None = None, force: bool = False
    ) -> None:
        """Show a line and the runs under way in the place of those before, when they are due."""
        if not force and not self.is_due():
            return
        self._shown = time.monotonic()
        if not self._console.is_interactive:
            if line != self._last:
                self.say(line)
            self._last = line
            return
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        if running:
            table.add_column("run under way", no_wrap=True)
            table.add_column("done", justify="right")
            table.add_column("best score", justify="right")
            table.add_column("on")
            for name, run in sorted(running.items()):
                score = f"{run.best_score:.3f}" if math.isfinite(run.best_score) else ""
                table.add_row(Text(name), f"{run.share:.0%}", score, Text(run.host))
        with suppress(OSError):
            self._live.start()
            self._live.update(Group(Text(line), table), refresh=True)
