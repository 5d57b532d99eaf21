from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg16

from featgan.errors import UserError
from featgan.features import network
from featgan.features.keras_weights import CONVOLUTIONS, read_keras_vgg16
from featgan.features.settings import FeatureSettings
from featgan.weights import State

h5py = pytest.importorskip("h5py")

NUMBERS = ["", *(f"_{n}" for n in range(1, 13))]
LAYOUTS = {
    "whole.h5": [f"model_weights/{n}/{n}/{{}}" for n in [*CONVOLUTIONS, "fc1"]],
    "applications.h5": [f"{n}/{n}_{{}}_1:0" for n in [*CONVOLUTIONS, "fc1"]],
    "new.weights.h5": [
        *(f"layers/conv2d{n}/vars/{{}}" for n in NUMBERS),
        "layers/dense/vars/{}",
    ],
}
"""The three ways in which Keras names things."""


@pytest.fixture(scope="module")
def state() -> State:
    """Weights of VGG16's convolutions, and of an fc1 of 8 outputs: 4096 take half a gigabyte."""
    with torch.device("meta"):
        shapes = {name: empty.shape for name, empty in vgg16().state_dict().items()}
    names = [f"features.{number}.weight" for number in CONVOLUTIONS.values()]
    convolutions = {name: torch.randn(shapes[name]) for name in names}
    return convolutions | {"classifier.0.weight": torch.randn(8, 512 * 7 * 7)}


def write(path: Path, state: State, places: list[str]) -> None:
    """Write kernels with channels last, as Keras does, and biases that number the layers."""
    *convolutions, fc1 = (tensor.numpy() for tensor in state.values())
    kernels = [kernel.transpose(2, 3, 1, 0) for kernel in convolutions]
    kernels.append(fc1.reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0).reshape(512 * 7 * 7, -1))
    names = ("0", "1") if "weights" in path.name else ("W", "b")
    with h5py.File(path, "w") as file:
        for number, (place, kernel) in enumerate(zip(places, kernels, strict=False)):
            file[place.format(names[0])] = kernel
            file[place.format(names[1])] = np.full(kernel.shape[-1], number, np.float32)


@pytest.mark.parametrize("name", LAYOUTS)
def test_keras_layouts(tmp_path: Path, state: State, name: str) -> None:
    write(tmp_path / name, state, LAYOUTS[name])
    found = read_keras_vgg16(tmp_path / name)

    assert all(found[key].equal(tensor) for key, tensor in state.items())
    assert found["features.5.bias"].unique().tolist() == [2]
    assert found["classifier.0.bias"].unique().tolist() == [13]


def test_a_keras_file_is_loaded_by_its_suffix(tmp_path: Path, state: State) -> None:
    write(tmp_path / "keras.h5", state, LAYOUTS["whole.h5"])
    settings = FeatureSettings(weights=str(tmp_path / "keras.h5"), layer="features.28")
    found = network.load(settings)

    assert found["features.28.weight"].equal(state["features.28.weight"])
    assert "classifier.0.weight" not in found


def test_a_file_without_fc1_is_explained(tmp_path: Path, state: State) -> None:
    write(tmp_path / "keras.h5", state, LAYOUTS["whole.h5"][:-1])
    with pytest.raises(UserError, match=r"classifier\.0\.\w+ is missing.* include_top=True"):
        network.load(FeatureSettings(weights=str(tmp_path / "keras.h5")))


def test_a_file_without_a_convolution_is_refused(tmp_path: Path, state: State) -> None:
    write(tmp_path / "keras.h5", state, LAYOUTS["whole.h5"][:5])
    with pytest.raises(UserError, match=r"cannot be read as weights .*no layer block3_conv2"):
        network.load(FeatureSettings(weights=str(tmp_path / "keras.h5")))
