"""What all tests share."""

import pytest
from hypothesis import settings

# How long a case takes is the machine's business, and no assertion's.
settings.register_profile("featgan", deadline=None)
settings.load_profile("featgan")

STARTS_RAY = {
    "cluster/test_connect",
    "cluster/test_preflight",
    "counting/test_build",
    "counting/test_build_fuzz",
    "preparation/test_image_values",
    "runs/test_tune",
    "test_beyond",
    "test_features",
    "test_killed_sweeps",
    "test_sweep",
    "test_sweep_s3",
    "test_sweep_values",
}


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray: those tests run one after the other, the rest on all cores."""
    for item in items:
        if any(item.path.match(f"tests/harness/{name}.py") for name in STARTS_RAY):
            item.add_marker(pytest.mark.ray)
