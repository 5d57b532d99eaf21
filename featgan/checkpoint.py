"""Checkpoints as bytes: a line with format and SHA-256, then what `torch.save` wrote.

The digest finds a truncated or altered file before any of it is used; loading is
`weights_only`, so that a file can hold tensors, numbers and strings, but no code.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import torch

from featgan.errors import UserError

MAGIC = b"featgan checkpoint "
HEADER = MAGIC + b"1 sha256 "


_WRITTEN = re.compile(MAGIC + rb"\d+ sha256 [0-9a-f]{64}")


class Damaged(Exception):
    """The bytes are not a whole checkpoint of this format; the text says why."""


def dump(state: dict[str, Any]) -> bytes:
    """A checkpoint of `state` (tensors, numbers, strings, lists and dictionaries of them)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def load(data: bytes, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a checkpoint. Raises Damaged; UserError where another version wrote it."""
    line, newline, content = data.partition(b"\n")
    if newline and _WRITTEN.fullmatch(line) and not line.startswith(HEADER):
        raise UserError(
            f"a checkpoint of another version of featgan ({line.decode()[:40]}…): continue the "
            "run with that version, or remove its folder"
        )
    if not newline or not line.startswith(HEADER):
        raise Damaged("not a checkpoint of this format")
    if hashlib.sha256(content).hexdigest().encode() != line.removeprefix(HEADER):
        raise Damaged("truncated or altered: the SHA-256 differs")
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location=device, weights_only=True
        )
    except Exception as error:
        raise Damaged(f"not loadable ({str(error).splitlines()[0]})") from error
    return state
