"""A driver's memory, which should not grow with the images it is told of."""

from __future__ import annotations

import pyarrow as pa

SLICE = 10_000
"""Rows of a long table that are handled at a time."""


def release() -> None:
    """Give back what was freed: Arrow's allocator and the system's keep it, as much as is held."""
    for pool in (pa.default_memory_pool(), pa.system_memory_pool()):
        pool.release_unused()
