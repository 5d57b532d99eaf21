"""Checkpoints as bytes: a line with version and SHA-256, then the output of `torch.save`.

The digest detects a truncated or altered file before any of it is used. Loading is `weights_only`,
so that a file can hold tensors, numbers and strings, but no code.
"""

import hashlib
import io
import re
from typing import Any

import torch

from featgan.errors import UserError, first_line

VERSION = 1
"""Version of the format and of the state in it; raise it when either changes."""
_HEADER = re.compile(rb"(featgan checkpoint (\d{1,9}) sha256 )([0-9a-f]{64})\n")


class Damaged(Exception):
    """The bytes are not a whole checkpoint of this format; the text says why."""


def dump(state: dict[str, Any]) -> bytes:
    """Return a checkpoint of `state` (tensors, numbers, strings, lists and dictionaries of them).

    The digest in its first line covers the rest of the line and all that follows.
    """
    line, file = b"featgan checkpoint %d sha256 " % VERSION, io.BytesIO()
    file.write(line + b"0" * 64 + b"\n")  # filled in below, so that there is only one copy
    torch.save(state, file)
    digest = _digest(line, file.getbuffer()[len(line) + 65 :])
    file.seek(len(line))
    file.write(digest.encode())
    return file.getvalue()


def load(data: bytes) -> dict[str, Any]:
    """Return the state in a checkpoint, with its tensors on the CPU.

    Raises Damaged if it is not whole, and UserError if it has another version.
    """
    header = _HEADER.match(data)
    if header is None:
        raise Damaged("not a checkpoint of this format")
    line, version, digest = header[1], int(header[2]), header[3].decode()
    if digest != _digest(line, memoryview(data)[header.end() :]):
        raise Damaged("truncated or altered: the SHA-256 differs")
    if version != VERSION:
        raise UserError(
            f"a checkpoint of another version of featgan (format {version}, this one has "
            f"{VERSION}): continue the run with that version, or remove its folder"
        )
    file = io.BytesIO(data)  # shares the bytes
    file.seek(header.end())
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # not damaged: the run must not start again
        raise Damaged(f"not loadable ({first_line(error)})") from error
    return state


def _digest(line: bytes, content: memoryview) -> str:
    sha256 = hashlib.sha256(line)
    sha256.update(content)
    return sha256.hexdigest()
