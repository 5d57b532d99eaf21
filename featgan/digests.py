"""Hashes of files and of settings."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(*content: Any) -> str:
    """Return the first 12 digits of the SHA-256 of `content` as sorted JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
