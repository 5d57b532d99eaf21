"""Checkpoints as bytes: a SHA-256, then the output of `torch.save`.

The digest detects a truncated or altered file before any of it is used. Loading is `weights_only`,
so that a file can hold tensors, numbers and strings, but no code.
"""

import hashlib
import io
from typing import Any

import torch

from featgan.errors import UserError, first_line

VERSION = 2
"""Version of the format and of the state in it; raise it when either changes."""
_DIGITS = 64
"""Bytes of the digest, in hexadecimal digits."""


class Damaged(Exception):
    """The bytes are not a whole checkpoint of this format; the text says why."""


def dump(state: dict[str, Any]) -> bytes:
    """Return a checkpoint of tensors, numbers and strings, in lists and dictionaries."""
    file = io.BytesIO()
    file.write(bytes(_DIGITS))  # filled in below, so that there is only one copy
    torch.save({"version": VERSION, "state": state}, file)
    digest = hashlib.sha256(file.getbuffer()[_DIGITS:]).hexdigest()
    file.seek(0)
    file.write(digest.encode())
    return file.getvalue()


def load(data: bytes) -> dict[str, Any]:
    """Return the state in a checkpoint, with its tensors on the CPU.

    Raises Damaged if it is not whole, and UserError if it has another version.
    """
    if hashlib.sha256(memoryview(data)[_DIGITS:]).hexdigest().encode() != data[:_DIGITS]:
        raise Damaged("truncated or altered: the SHA-256 differs")
    file = io.BytesIO(data)  # shares the bytes
    file.seek(_DIGITS)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        version, state = found["version"], found["state"]
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # not damaged: the run must not start again
        raise Damaged(f"not loadable ({first_line(error)})") from error
    if version != VERSION:
        raise UserError(
            f"a checkpoint of another version of featgan (format {version}, this one has "
            f"{VERSION}): continue the run with that version, or remove its folder"
        )
    return dict(state)
