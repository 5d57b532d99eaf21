"""Safetensors files with a JSON header and a digest: generators, classifiers, features.

The metadata of a file has one entry, because safetensors writes several in any order. Its key is
the kind of the file, such as `featgan generator 1`; its value is the header as JSON.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from featgan.errors import UserError, first_line


def dump(kind: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """Return the bytes of a file; they are a function of the arguments alone."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sealed = header | {"sha256": _digest(header, tensors)}
    return save(tensors, {kind: json.dumps(sealed)})


def read(path: Path | str, kind: str, advice: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Return the header, tensors and SHA-256 of a file that holds what `dump` returned.

    Raises `UserError`, which ends with `advice`, if the file is missing, damaged or of another
    kind.
    """
    try:
        if not Path(path).is_file():  # a pipe would block
            raise FileNotFoundError("no such file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if kind not in metadata:
            raise ValueError(f"it is not a {kind!r} but {', '.join(metadata) or 'another file'}")
        header = json.loads(metadata[kind])
        digest = header.pop("sha256")
        if digest != _digest(header, tensors):
            raise ValueError("damaged or edited: its SHA-256 differs")
    # the file system, safetensors and JSON have errors of their own for a file that is damaged
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {advice}") from error
    return header, tensors, digest


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + save(tensors)).hexdigest()
