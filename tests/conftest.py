"""Settings and marks for all tests."""

import pytest
from hypothesis import settings

# Durations depend on the machine, so no example has a deadline.
settings.register_profile("featgan", deadline=None)
settings.load_profile("featgan")

MARKS = {"own_ray": 0, "ray_session": 1}
"""Fixtures whose tests get a mark of the same name, and the order in which these tests run.

A test that starts Ray itself cannot do so while the shared instance is up in this process.
"""


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use Ray by their fixtures, and run them in the order of `MARKS`."""
    order = {}
    for item in items:
        used = [name for name in MARKS if name in getattr(item, "fixturenames", ())]
        for name in used:
            item.add_marker(name)
        order[item.nodeid] = min((MARKS[name] for name in used), default=len(MARKS))
    items.sort(key=lambda item: order[item.nodeid])
