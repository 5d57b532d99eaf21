from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featgan import tensor_file
from featgan.errors import UserError

KIND = "featgan thing 2"
HEADER = {"name": "a", "numbers": [1, 2.5]}
TENSORS = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.tensor([True])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "thing.safetensors"
    path.write_bytes(tensor_file.dump(KIND, HEADER, TENSORS))
    return path


def test_a_file_holds_header_and_tensors(path: Path) -> None:
    header, tensors, digest = tensor_file.read(path, KIND, "delete it")

    assert header == HEADER
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert len(digest) == 64


def test_bytes_depend_on_content_alone(path: Path) -> None:
    turned = {"y": TENSORS["y"], "x": TENSORS["x"].T.contiguous().T.requires_grad_()}
    assert tensor_file.dump(KIND, HEADER, turned) == path.read_bytes()
    assert tensor_file.dump(KIND, HEADER | {"name": "b"}, TENSORS) != path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", "rror while deserializing"),
        ("flipped", "damaged or edited"),
        ("edited", "damaged or edited"),
        ("empty", "rror while deserializing"),
        ("missing", "no such file"),
        ("pipe", "no such file"),
        ("foreign", "not a 'featgan thing 2' but another file"),
        ("another kind", "not a 'featgan thing 2' but featgan thing 1"),
        ("no digest", "sha256"),
    ],
)
def test_other_files_are_refused_in_one_line(path: Path, damage: str, reason: str) -> None:
    data = path.read_bytes()
    changed = {
        "cut": data[:-4],
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "edited": data.replace(b'\\"a\\"', b'\\"b\\"'),
        "empty": b"",
        "another kind": data.replace(b"featgan thing 2", b"featgan thing 1"),
        "no digest": data.replace(b"sha256", b"sha255"),
    }
    if damage in ("missing", "pipe"):
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage == "foreign":
        save_file(TENSORS, path)
    elif damage in changed:
        path.write_bytes(changed[damage])
    with pytest.raises(UserError, match=rf"thing\.safetensors: .*{reason}.*; delete it$") as caught:
        tensor_file.read(path, KIND, "delete it")
    assert "\n" not in str(caught.value)
