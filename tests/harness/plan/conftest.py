from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.plan.load import Scale, load
from harness.plan.settings import Sweep

SMALL = """
data:
  a: {source: builtin, set: apples, count: 60}
  b: {source: builtin, set: digits}
image_size: 32
training: {stage_epochs: 20, evaluate_every: 5}
score: {classifier: trained, trained_on: [a]}
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Sweep]:
    """Load a sweep file: a small one with further lines, and `old` replaced by `new`."""

    def read(
        extra: str = "", old: str = "", new: str = "", *, text: str = SMALL, scale: Scale = "full"
    ) -> Sweep:
        assert old in text
        path = tmp_path / "small.yaml"
        path.write_text(text.replace(old, new, 1 if old else 0) + textwrap.dedent(extra))
        return load(path, scale)

    return read
