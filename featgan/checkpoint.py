"""Checkpoints as bytes: a line with version and SHA-256, then what `torch.save` wrote.

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

VERSION = 2
_HEADER = re.compile(rb"(featgan checkpoint (\d+) sha256 )([0-9a-f]{64})")


class Damaged(Exception):
    """The bytes are not a whole checkpoint of this format; the text says why."""


def dump(state: dict[str, Any]) -> bytes:
    """A checkpoint of `state` (tensors, numbers, strings, lists and dictionaries of them)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return seal(buffer.getvalue())


def seal(content: bytes) -> bytes:
    """The line in front of what `torch.save` wrote, and that; the digest covers both."""
    line = b"featgan checkpoint %d sha256 " % VERSION
    return line + _digest(line, content) + b"\n" + content


def load(data: bytes, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a checkpoint. Raises Damaged; UserError where another version wrote it."""
    line, _, content = data.partition(b"\n")
    header = _HEADER.fullmatch(line)
    if header is None:
        raise Damaged("not a checkpoint of this format")
    if _digest(header[1], content) != header[3]:
        raise Damaged("truncated or altered: the SHA-256 differs")
    if int(header[2]) != VERSION:
        raise UserError(
            f"a checkpoint of another version of featgan (format {int(header[2])}, this one has "
            f"{VERSION}): continue the run with that version, or remove its folder"
        )
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location=device, weights_only=True
        )
    except Exception as error:
        raise Damaged(f"not loadable ({str(error).splitlines()[0]})") from error
    return state


def _digest(line: bytes, content: bytes) -> bytes:
    return hashlib.sha256(line + content).hexdigest().encode()
