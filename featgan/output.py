"""A command's standard output: it may not spell every letter, and its reader may have gone."""

from __future__ import annotations

import io
import os
import select
import sys

STDOUT = 1


def spell_all() -> None:
    r"""Write letters that the terminal's encoding lacks as `\xe9`, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_closed() -> bool:
    """Whether a broken pipe is that of standard output: `head` has its lines, and is gone.

    What is left of it then goes nowhere, or Python would fail once more when it ends.
    """
    poll = select.poll()
    poll.register(STDOUT, 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return closed
