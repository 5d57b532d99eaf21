"""Independent random streams by name, so that no part of a run disturbs another.

A stream is a function of the seed and its name alone. Nothing therefore has to be saved
to continue one: the batches of epoch 7 of stage 2 are the same whoever trains them, and
an evaluation cannot shift them.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *name: str | int) -> int:
    """The 63-bit seed of the stream `name` under `seed`."""
    text = "/".join(map(str, (seed, *name)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *name: str | int) -> torch.Generator:
    """A generator at the start of the stream `name` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *name))
