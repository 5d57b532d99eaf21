"""Resolve the precision that settings ask for to a number format that the device supports.

The trainer and the scores both resolve `auto` here, and report the result.
"""

import torch

from featgan.settings import Precision


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """Return `torch.float32` or `torch.bfloat16`; `auto` is bf16 if `device` has it in hardware.

    A CPU without bf16 instructions emulates them, about 20 times slower than fp32, so there
    `auto` is fp32. An explicit `bf16` is used on every device.
    """
    if precision == "bf16" or (precision == "auto" and has_bf16(device)):
        return torch.bfloat16
    return torch.float32


def name(dtype: torch.dtype) -> str:
    """Return the name of `dtype` in settings and protocols: `fp32` or `bf16`."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def has_bf16(device: torch.device) -> bool:
    """Return whether `device` has instructions for bf16, rather than an emulation."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        instructions = torch.cpu.get_capabilities()
        return bool(instructions.get("amx_bf16") or instructions.get("avx512_bf16"))
    return False
