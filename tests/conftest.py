"""What all tests share."""

import pytest
from hypothesis import settings

# How long a case takes is the machine's business, and no assertion's.
settings.register_profile("featgan", deadline=None)
settings.load_profile("featgan")

STARTS_RAY = {
    "test_beyond",
    "test_cluster",
    "test_features",
    "test_features_command",
    "test_features_fuzz",
    "test_image_values",
    "test_killed_sweeps",
    "test_preflight",
    "test_runs",
    "test_sweep",
    "test_sweep_values",
}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module in one of pytest-xdist's processes, and all that start Ray in the same one.

    Two Rays at once on two cores take longer than one after the other.
    """
    for item in items:
        ray = item.path.stem in STARTS_RAY and item.path.parent.name == "harness"
        item.add_marker(pytest.mark.xdist_group("ray" if ray else item.path.stem))
