"""JSON files with a format version and a checksum.

A file that was damaged, cut or edited is refused when it is read. A file without a SHA-256 is
read as it is: people may write one by hand.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

SEAL = "sha256"


class Sealed(BaseModel):
    """Base of such files; those of another `format` were written by another version of featgan."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1

    def to_json(self) -> bytes:
        """Return the file: all fields and the hash of them."""
        content = self.model_dump(mode="json")
        return json.dumps(content | {SEAL: _digest(content)}, indent=1).encode() + b"\n"

    @model_validator(mode="before")
    @classmethod
    def _check_seal(cls, content: Any) -> Any:
        if isinstance(content, dict) and SEAL in content:
            content = dict(content)
            if content.pop(SEAL) != _digest(content):
                raise ValueError("damaged or edited: the SHA-256 differs")
        return content


def is_of_other_format(error: ValidationError) -> bool:
    """Return whether a file was refused because another version of featgan wrote it."""
    return any(each["loc"] == ("format",) for each in error.errors())


def first_problem(error: ValidationError) -> str:
    """Return why a file was refused, in one line."""
    first = error.errors()[0]
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    if is_of_other_format(error):
        message = "another version of featgan wrote it"
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {message}"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
