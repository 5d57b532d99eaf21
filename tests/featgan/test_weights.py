from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from featgan.errors import UserError
from featgan.weights import read_weights, weights_file

TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
CONTENT = b"published weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
URL = f"https://example.org/models/net-{DIGEST[:8]}.pth"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_a_file_is_found_with_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(CONTENT)
    assert weights_file(str(file), URL, "score.weights") == (file, DIGEST)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.pth"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=r"^score\.weights: .*mine\.pth is not a file"):
        weights_file(str(path), URL, "score.weights")


@pytest.mark.guarantee(
    "Exposure",
    "Downloaded weights are verified by their published hash, also when kept",
)
def test_a_download_is_verified_and_kept(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        Path(path).write_bytes(CONTENT)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert weights_file(None, URL, "x") == (hub / URL.rpartition("/")[2], DIGEST)
    assert asked == [(URL, DIGEST[:8])]


@pytest.mark.guarantee(
    "Exposure",
    "Downloaded weights are verified by their published hash, also when kept",
)
def test_a_damaged_download_is_refused(hub: Path) -> None:
    hub.mkdir()
    (hub / URL.rpartition("/")[2]).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"^x\.y: .*net-.*\.pth is damaged; delete it"):
        weights_file(None, URL, "x.y")


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash")])
def test_a_failed_download_names_address_and_place(
    hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"^x\.y: ") as caught:
        weights_file(None, URL, "x.y")
    assert URL in str(caught.value)
    assert str(hub / URL.rpartition("/")[2]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torch_and_safetensors_files_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    save_file(TENSORS, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        found = read_weights(tmp_path / name, "x")
        assert set(found) == set(TENSORS)
        assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def save_script(model: torch.nn.Module, file: Path) -> None:
    with pytest.warns(FutureWarning):  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(model), file)


PARALLEL = {f"module.{name}": tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        PARALLEL,
        {"state_dict": TENSORS, "epoch": 90, "best_acc1": 0.7},
        {"epoch": 3, "model_state_dict": PARALLEL, "optimizer_state_dict": {"state": {}}},
        {"model": {name: tensor.half() for name, tensor in TENSORS.items()}},
    ],
    ids=["DataParallel", "checkpoint", "checkpoint of DataParallel", "half precision"],
)
def test_weights_are_found_in_what_people_save(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mine.pth")
    found = read_weights(tmp_path / "mine.pth", "x.y")

    assert {name: tensor.float().tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


@pytest.mark.parametrize("save", [torch.save, save_script], ids=["pickle", "TorchScript"])
def test_a_whole_model_is_refused_with_what_to_save(tmp_path: Path, save: Any) -> None:
    save(torch.nn.Linear(2, 2), tmp_path / "mine.pth")
    with pytest.raises(UserError, match=r"mine\.pth cannot .* whole model.*state_dict") as caught:
        read_weights(tmp_path / "mine.pth", "x.y")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("content", ["text", torch.zeros(3), {"number": 3}])
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, content: object) -> None:
    file = tmp_path / "mine.pth"
    file.write_text("text") if content == "text" else torch.save(content, file)
    with pytest.raises(UserError, match=r"^x\.y: .*mine\.pth cannot be read as weights") as caught:
        read_weights(file, "x.y")
    assert "\n" not in str(caught.value)
