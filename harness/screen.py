"""What a person sees while a sweep runs: one live line on a terminal, else a line now and then.

Decides nothing; prints to standard error, so that standard output holds the tables alone.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TextIO

from harness.redaction import redacted

PLAIN_SECONDS = 10.0
"""Least time between two progress lines where no terminal shows them."""


@dataclass
class Counts:
    """Runs of the sweep by what became of them, and how far the work of this call is."""

    total: int
    done: int = 0
    failed: int = 0
    running: int = 0
    share: float = 0.0
    """Share of this call's work that is done, 0..1."""
    best_score: float = float("-inf")
    best: str = ""
    """The best score so far with its run and protocol."""

    def add_score(self, score: float | None, where: str, protocol: str) -> None:
        """Take note of a run's best score."""
        if score is not None and score > self.best_score:
            self.best_score, self.best = score, f"{score:.3f} ({where}; {protocol})"


@dataclass
class Screen:
    """Lines that stay, and one progress line that is overwritten on a terminal."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _width: int = 0
    _what: str = ""
    _before: int = 0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
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
        """Progress of the runs."""
        parts = [f"runs: {counts.done} of {counts.total} done", f"{counts.running} running"]
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        if 0 < counts.share < 1:
            parts.append(f"{self._left(counts.share)} left")
        if counts.best:
            parts.append(f"best {counts.best}")
        self._progress(", ".join(parts), force=last)

    def begin(self) -> None:
        """Time left is reckoned from here."""
        self._started = time.monotonic()

    def _left(self, share: float) -> str:
        seconds = (time.monotonic() - self._started) * (1 - share) / share
        return str(timedelta(seconds=round(seconds)))

    def _progress(self, line: str, force: bool = False) -> None:
        terminal = self.out.isatty()
        pause = 0.2 if terminal else PLAIN_SECONDS
        if not force and time.monotonic() - self._shown < pause:
            return
        self._shown = time.monotonic()
        if not terminal:
            print(line, file=self.out, flush=True)
            return
        print(f"\r{line:<{self._width}}", end="", file=self.out, flush=True)
        self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self.out)
            self._width = 0
