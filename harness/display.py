"""What a person sees while a sweep runs: a live table on a terminal, else a line now and then.

Decides nothing; prints to standard error, so that standard output holds the tables alone.
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
from typing import Any, NamedTuple, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.storage.redaction import redacted

PLAIN_SECONDS = 10.0
"""Least time between two progress lines where no terminal shows them."""
LIVE_SECONDS = 0.2


class Progress(NamedTuple):
    """How far a run under way is."""

    share: float = 0.0
    """Of its epochs, 0..1."""
    best_score: float = -math.inf
    host: str = ""


@dataclass
class Counts:
    """Runs of the sweep by what became of them, and how far the work of this call is."""

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
        """Take note of a run's best score."""
        if score is not None and score > self.best_score:
            self.best_score, self.best = score, f"{score:.3f} ({where}; {protocol})"


@dataclass
class Screen:
    """Lines that stay, and on a terminal what is under way below them, until `end`."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    _live: Live | None = None
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _what: str = ""
    _before: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, and this with them; what is live holds locks."""
        return {**self.__dict__, "_live": None}

    def say(self, text: str) -> None:
        """A line that stays."""
        with suppress(OSError):  # whoever looked may have gone, and no run depends on it
            if self._live:
                self._live.console.out(redacted(text), highlight=False)
            else:
                print(redacted(text), file=self.out, flush=True)

    def features(self, what: str, done: int, total: int | None) -> None:
        """Progress of feature counting; time left is reckoned from each data set's first images."""
        if total is None:
            self.say(what)
            return
        if what != self._what:
            self._what, self._before = what, done
            self.begin()
        line = f"{what}: {done:,} of {total:,} images"
        if self._before < done < total:
            line += f", {self._left((done - self._before) / (total - self._before))} left"
        self._progress(line)

    def runs(self, counts: Counts, last: bool = False) -> None:
        """Progress of the runs; their table where a terminal can show it."""
        parts = [f"runs: {counts.done} of {counts.total} done", f"{len(counts.running)} running"]
        if not counts.running and counts.done + counts.failed < counts.total:
            parts[-1] = "none running: the others wait for a node"
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        if 0 < counts.share < 1:
            parts.append(f"{self._left(counts.share)} left")
        if counts.best:
            parts.append(f"best {counts.best}")
        self._progress(", ".join(parts), counts.running, force=last)

    def begin(self) -> None:
        """Time left is reckoned from here."""
        self._started = time.monotonic()

    def is_due(self) -> bool:
        """Whether progress told now would be shown: what is costly to tell can wait for it."""
        pause = LIVE_SECONDS if self._is_live() else PLAIN_SECONDS
        return time.monotonic() - self._shown >= pause

    def end(self) -> None:
        """What was shown last stays; whatever is printed now comes below it."""
        live, self._live = self._live, None
        if live:
            with suppress(OSError):
                live.stop()

    def _is_live(self) -> bool:
        return self.out.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown")

    def _left(self, share: float) -> str:
        seconds = (time.monotonic() - self._started) * (1 - share) / share
        return str(timedelta(seconds=round(seconds)))

    def _progress(
        self, line: str, running: Mapping[str, Progress] = MappingProxyType({}), force: bool = False
    ) -> None:
        if not force and not self.is_due():
            return
        self._shown = time.monotonic()
        with suppress(OSError):
            if self._is_live():
                self._draw(line, running)
            else:
                print(line, file=self.out, flush=True)

    def _draw(self, line: str, running: Mapping[str, Progress]) -> None:
        """Put the line, and the runs below it, in the place of what was shown before."""
        if self._live is None:
            console = Console(file=self.out, force_terminal=True)
            self._live = Live(
                console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        shown: RenderableType = Text(line)
        self._live.update(Group(shown, _table(running)) if running else shown, refresh=True)


def _table(running: Mapping[str, Progress]) -> Table:
    """A row for each run under way."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run under way", no_wrap=True)
    table.add_column("done", justify="right")
    table.add_column("best score", justify="right")
    table.add_column("on")
    for name, run in sorted(running.items()):
        score = f"{run.best_score:.3f}" if math.isfinite(run.best_score) else ""
        table.add_row(Text(name), f"{run.share:.0%}", score, Text(run.host))
    return table
