"""What the tests of runs share."""

from __future__ import annotations

import time
from itertools import count

import pytest
from tensorboard.summary.writer import event_file_writer


@pytest.fixture
def seconds_between_event_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each event file be of another second: TensorBoard orders them by it."""
    now = count(int(time.time()))
    monkeypatch.setattr(event_file_writer.time, "time", lambda: float(next(now)))
