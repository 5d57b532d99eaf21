"""The device that a run was asked to use, and the versions of the libraries."""

import platform
from functools import cache
from importlib.metadata import version

import torch

from featgan.errors import UserError

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "ray")


def device(gpu: bool) -> torch.device:
    """Return the GPU that Ray gave this process, or the CPU; a GPU not asked for is left to others.

    Raises UserError where PyTorch cannot use a GPU that was asked for.
    """
    if gpu and (reason := why_no_gpu()):
        raise UserError(reason)
    return torch.device("cuda" if gpu else "cpu")


def why_no_gpu() -> str | None:
    """Return why PyTorch cannot use this machine's GPU, and what to do; None where it can."""
    if torch.cuda.is_available():
        return None
    why = f"is its driver older than CUDA {torch.version.cuda}?"
    if not torch.backends.cuda.is_built():
        why = "it was built without CUDA"
    return (
        f"PyTorch {torch.__version__} cannot use the GPU: {why}; fix it, or set "
        "resources.gpus_per_run: 0 to run on CPUs"
    )


def device_name(device: torch.device) -> str:
    """Return a GPU's model, or the CPU's kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, featgan and the libraries that can change a number."""
    packages = {name: version(name) for name in ("featgan", *LIBRARIES)}
    return {"python": platform.python_version()} | packages
