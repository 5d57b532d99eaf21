from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ["featgan.features.settings", "featgan.scores.settings", "featgan.user_code"]


@pytest.mark.parametrize("module", MODULES)
def test_settings_load_nothing_heavy(module: str) -> None:
    heavy = ["torch", "torchvision", "sklearn", "scipy", "pandas"]
    script = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
