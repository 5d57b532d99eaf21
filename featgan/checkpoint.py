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
_BARE = 1
"""The version whose digest covered the content alone."""
_HEADER = re.compile(rb"(featgan checkpoint (\d{1,9}) sha256 )([0-9a-f]{64})\n")


class Damaged(Exception):
    """The bytes are not a whole checkpoint of this format; the text says why."""


def dump(state: dict[str, Any]) -> bytes:
    """A checkpoint of `state` (tensors, numbers, strings, lists and dictionaries of them).

    A line with the digest of all else stands in front of what `torch.save` writes.
    """
    line, file = b"featgan checkpoint %d sha256 " % VERSION, io.BytesIO()
    file.write(line + b"0" * 64 + b"\n")  # blank for now: a large checkpoint exists once
    torch.save(state, file)
    digest = _digest(line, file.getbuffer()[len(line) + 65 :])
    file.seek(len(line))
    file.write(digest.encode())
    return file.getvalue()


def load(data: bytes, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in a checkpoint. Raises Damaged; UserError where another version wrote it."""
    header = _HEADER.match(data)
    if header is None:
        raise Damaged("not a checkpoint of this format")
    version, digest = int(header[2]), header[3].decode()
    content = memoryview(data)[header.end() :]
    if digest != _digest(b"" if version == _BARE else header[1], content):
        raise Damaged("truncated or altered: the SHA-256 differs")
    if version != VERSION:
        raise UserError(
            f"a checkpoint of another version of featgan (format {version}, this one has "
            f"{VERSION}): continue the run with that version, or remove its folder"
        )
    file = io.BytesIO(data)  # shares the bytes
    file.seek(header.end())
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # a whole checkpoint: the run must not begin anew
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"not loadable ({reason})") from error
    return state


def _digest(line: bytes, content: memoryview) -> str:
    sha256 = hashlib.sha256(line)
    sha256.update(content)
    return sha256.hexdigest()
