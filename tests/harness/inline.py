"""Ray's tasks and counting in this process; a stand-in for the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from harness.counting import shards, workers
from harness.counting.cache import EarlierCounts
from harness.counting.shards import Block
from harness.sources import folder as folders


class Inline:
    """A Ray task that runs in this process."""

    def __init__(self, task: Any) -> None:
        self.remote = task._function

    def options(self, **_: Any) -> Inline:
        return self


@dataclass
class Here:
    """What was done, and which images nobody may read."""

    read: list[str] = field(default_factory=list)
    """Names of the images that were read."""
    seen: int = 0
    """Images that the network saw."""
    closed: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """Begin again."""
        self.read.clear()
        self.seen = 0

    def count(self, inputs: np.ndarray) -> np.ndarray:
        """Return the brightest pixel of each image in place of its count."""
        self.seen += len(inputs)
        found: np.ndarray = inputs.max(axis=(1, 2, 3))
        return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Count in this process, two images to a block."""
    here, read = Here(), folders.read

    def guarded(location: bytes) -> bytes:
        name = os.path.basename(location).decode()
        if name in here.closed:
            raise PermissionError(13, "Permission denied")
        here.read.append(name)
        return read(location)

    def count(
        job: workers.Job, blocks: pa.Table, earlier: EarlierCounts, *_: object
    ) -> Iterator[Block]:
        actor = workers.Counter(job, [], [earlier], gpu=False)
        for row in range(len(blocks)):
            yield Block.model_validate_json(actor(blocks.slice(row, 1))["block"][0].as_py())

    monkeypatch.setattr(folders, "read", guarded)
    monkeypatch.setattr(workers, "count", count)
    monkeypatch.setattr(workers, "counter", lambda *_: here)
    monkeypatch.setattr(workers.ray, "get", lambda reference: reference)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(shards, "SMALLEST", 2)
    return here
