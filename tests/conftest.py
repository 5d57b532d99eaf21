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
    "test_sweep_s3",
    "test_sweep_values",
}


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray: those tests run one after the other, the rest on all cores."""
    for item in items:
        if item.path.stem in STARTS_RAY and item.path.parent.name == "harness":
            item.add_marker(pytest.mark.ray)
