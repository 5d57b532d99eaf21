"""Waiting for what another process does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest


def await_(
    condition: Callable[[], object],
    what: str,
    seconds: float = 300,
    pause: float = 0.1,
    process: subprocess.Popen[Any] | None = None,
) -> None:
    """Poll for an event that cannot be signalled, while `process` lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended before: {what}: {process.communicate()}")
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)
