"""What a run runs on: the device that was asked for, and the versions of the libraries."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

import torch

from featgan.errors import UserError

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "ray")


def device(gpu: bool) -> torch.device:
    """The GPU that Ray gave this process, or the CPU; UserError where PyTorch cannot use a GPU.

    A machine may have a GPU that was not asked for: it is left to others.
    """
    if gpu and (reason := why_no_gpu()):
        raise UserError(reason)
    return torch.device("cuda" if gpu else "cpu")


def why_no_gpu() -> str | None:
    """Why PyTorch cannot use this machine's GPU, and what to do; None where it can."""
    if torch.cuda.is_available():
        return None
    why = f"is its driver older than CUDA {torch.version.cuda}?"
    if not torch.backends.cuda.is_built():
        why = "it was built without CUDA"
    return (
        f"PyTorch {torch.__version__} cannot use the GPU: {why}; mend this, or set "
        "resources.gpus_per_run: 0 to run on CPUs"
    )


def device_name(device: torch.device) -> str:
    """A GPU's model, or the CPU's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def kind(device: torch.device) -> str:
    """Device and PyTorch: two of one kind compute the same bytes."""
    return f"{device_name(device)}, torch {torch.__version__}"


@cache
def versions() -> dict[str, str]:
    """Versions of Python, featgan and the libraries that can change a number."""
    packages = {name: version(name) for name in ("featgan", *LIBRARIES)}
    return {"python": platform.python_version()} | packages
