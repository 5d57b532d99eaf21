"""Independent named random streams, so that no part of a run affects another.

A stream is a function of the seed and its name alone. So nothing has to be saved to continue one:
the batches of epoch 7 of stage 2 are the same in every process, and an evaluation cannot change
them.
"""

import hashlib

import torch


def derive(seed: int, *name: str | int) -> int:
    """Return the 63-bit seed of the stream `name` under `seed`."""
    text = "/".join(map(str, (seed, *name)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *name: str | int) -> torch.Generator:
    """Return a generator at the start of the stream `name` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *name))
