from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16

from featgan.errors import UserError
from featgan.features import vgg

CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
"""Numbers of VGG16's convolutions among torchvision's `features`."""
KERAS = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]


@pytest.fixture(scope="module")
def state() -> vgg.State:
    return vgg.load("random", 0)


def test_network_is_torchvisions_up_to_fc1(state: vgg.State) -> None:
    whole = vgg16(weights=None, init_weights=False).eval()
    whole.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = whole.classifier[0](torch.flatten(whole.avgpool(whole.features(images)), 1))
        found = vgg.vgg16_to_fc1(state)(images)

    assert found.shape == (2, vgg.FEATURES)
    assert torch.equal(found, wanted)


def test_network_shares_its_weights(state: vgg.State) -> None:
    network = vgg.vgg16_to_fc1(state)

    assert network.classifier[0].weight.data_ptr() == state["classifier.0.weight"].data_ptr()


def test_random_weights_are_torchvisions_kind_and_follow_their_seed(state: vgg.State) -> None:
    assert state["features.10.weight"].std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert state["classifier.0.weight"].std() == pytest.approx(0.01, rel=0.01)
    assert not state["features.10.bias"].any()
    again, other = vgg._random(0), vgg._random(1)
    assert torch.equal(state["classifier.0.weight"], again["classifier.0.weight"])
    assert not torch.equal(state["features.0.weight"], other["features.0.weight"])
    assert vgg.identity("random", 0) != vgg.identity("random", 1)


def test_files_of_torch_and_safetensors(tmp_path: Path, state: vgg.State) -> None:
    more = state | {"classifier.3.bias": torch.zeros(4096)}  # whole networks go on
    torch.save(more, tmp_path / "vgg.pth")
    save_file(more, tmp_path / "vgg.safetensors")
    for name in ("vgg.pth", "vgg.safetensors"):
        path = tmp_path / name
        found = vgg.load(str(path), 0)
        assert set(found) == set(state)
        assert all(torch.equal(found[key], state[key]) for key in state)
        assert vgg.identity(str(path), 0) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_keras_layouts(tmp_path: Path, state: vgg.State) -> None:
    """The three ways Keras names things, with its channels last in kernels and in flattening."""
    h5py = pytest.importorskip("h5py")
    fc1 = state["classifier.0.weight"].numpy().reshape(4096, 512, 7, 7)
    kernels = [state[f"features.{n}.weight"].numpy().transpose(2, 3, 1, 0) for n in CONVOLUTIONS]
    kernels.append(fc1.transpose(2, 3, 1, 0).reshape(25088, 4096))
    biases = [np.full(kernel.shape[-1], n, np.float32) for n, kernel in enumerate(kernels)]
    numbers = ["", *(f"_{n}" for n in range(1, 13))]
    layouts = {
        "whole.h5": [f"model_weights/{n}/{n}/{{}}" for n in [*KERAS, "fc1"]],
        "applications.h5": [f"{n}/{n}_{{}}_1:0" for n in [*KERAS, "fc1"]],
        "new.weights.h5": [
            *(f"layers/conv2d{n}/vars/{{}}" for n in numbers),
            "layers/dense/vars/{}",
        ],
    }
    for file_name, places in layouts.items():
        names = ("0", "1") if "weights" in file_name else ("W", "b")
        with h5py.File(tmp_path / file_name, "w") as file:
            for place, kernel, bias in zip(places, kernels, biases, strict=True):
                file[place.format(names[0])], file[place.format(names[1])] = kernel, bias
        found = vgg.load(str(tmp_path / file_name), 0)
        for name, tensor in state.items():
            if name.endswith("weight"):
                assert torch.equal(found[name], tensor), (file_name, name)
        assert found["features.5.bias"].unique().tolist() == [2]
        assert found["classifier.0.bias"].unique().tolist() == [13]
        (tmp_path / file_name).unlink()


def test_weights_without_fc1_are_refused_with_the_reason(tmp_path: Path, state: vgg.State) -> None:
    h5py = pytest.importorskip("h5py")
    convolutions = {name: tensor for name, tensor in state.items() if "features" in name}
    invalid = state | {"classifier.0.weight": torch.full((4096, 25088), torch.nan)}
    files = [tmp_path / name for name in ("without.pth", "invalid.pth", "keras.h5")]
    torch.save(convolutions, files[0])
    torch.save(invalid, files[1])  # as torchvision's IMAGENET1K_FEATURES
    with h5py.File(files[2], "w") as file:
        for number, name in zip(CONVOLUTIONS, KERAS, strict=False):
            file[f"{name}/kernel"] = (
                state[f"features.{number}.weight"].numpy().transpose(2, 3, 1, 0)
            )
            file[f"{name}/bias"] = state[f"features.{number}.bias"].numpy()
    for path in files:
        with pytest.raises(UserError, match="lacks VGG16's first fully connected layer"):
            vgg.load(str(path), 0)


def test_foreign_files_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    torch.save({"code": SimpleNamespace}, tmp_path / "code.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"features.0.weight": 3}, tmp_path / "number.pth")
    for name, says in (
        ("text.pth", "cannot be read as VGG16"),
        ("tensor.pth", "something else than named tensors"),
        ("number.pth", "something else than named tensors"),
        ("other.pth", "is not VGG16's"),
        ("code.pth", "cannot be read as VGG16"),
        ("none.pth", "no file"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            vgg.load(str(tmp_path / name), 0)
        assert "\n" not in str(caught.value)


def test_imagenet_that_cannot_be_had_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError) as caught:
        vgg.identity("imagenet", 0)

    assert str(tmp_path / "checkpoints" / "vgg16-397923af.pth") in str(caught.value)
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(caught.value)


def test_imagenet_is_downloaded_verified_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append(hash_prefix)
        Path(path).write_bytes(b"not the weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there, and its own hash betrays it
        with pytest.raises(UserError, match="is damaged; delete it"):
            vgg.identity("imagenet", 0)

    assert asked == ["397923af"]
