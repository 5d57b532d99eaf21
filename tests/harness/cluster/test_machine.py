"""What a run runs on is what was asked for."""

from __future__ import annotations

import pytest
import torch

from featgan.errors import UserError
from harness.cluster import machine


@pytest.mark.parametrize("there", [True, False])
def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert machine.device(False) == torch.device("cpu")
    if there:
        assert machine.device(True) == torch.device("cuda")
        return
    with pytest.raises(UserError, match=r"or set resources\.gpus_per_run: 0 to run on CPUs"):
        machine.device(True)


@pytest.mark.parametrize(
    ("built", "why"), [(True, "is its driver older than CUDA"), (False, "built without CUDA")]
)
def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, built: bool, why: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    assert why in (machine.why_no_gpu() or "")


def test_the_versions_name_what_can_change_a_number() -> None:
    assert {"python", "torch", "torchvision", "pillow", "scikit-learn"} <= machine.versions().keys()
