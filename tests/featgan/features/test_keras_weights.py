from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featgan.errors import UserError
from featgan.features import network
from featgan.features.keras_weights import CONVOLUTIONS
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
    return network.load(FeatureSettings(weights="random"))


def write(path: Path, state: State, places: list[str]) -> None:
    """Write kernels with channels last, as Keras does, and biases that number the layers."""
    kernels = [
        state[f"features.{n}.weight"].numpy().transpose(2, 3, 1, 0) for n in CONVOLUTIONS.values()
    ]
    fc1 = state["classifier.0.weight"].numpy().reshape(4096, 512, 7, 7)
    kernels.append(fc1.transpose(2, 3, 1, 0).reshape(25088, 4096))
    names = ("0", "1") if "weights" in path.name else ("W", "b")
    with h5py.File(path, "w") as file:
        for number, (place, kernel) in enumerate(zip(places, kernels, strict=False)):
            file[place.format(names[0])] = kernel
            file[place.format(names[1])] = np.full(kernel.shape[-1], number, np.float32)


@pytest.mark.parametrize("name", LAYOUTS)
def test_keras_layouts(tmp_path: Path, state: State, name: str) -> None:
    write(tmp_path / name, state, LAYOUTS[name])
    found = network.load(FeatureSettings(weights=str(tmp_path / name)))

    for key, tensor in state.items():
        if key.endswith("weight"):
            assert found[key].equal(tensor), key
    assert found["features.5.bias"].unique().tolist() == [2]
    assert found["classifier.0.bias"].unique().tolist() == [13]


def test_a_file_without_fc1_is_explained(tmp_path: Path, state: State) -> None:
    write(tmp_path / "keras.h5", state, LAYOUTS["whole.h5"][:-1])
    with pytest.raises(UserError, match=r"classifier\.0\.\w+ is missing.* include_top=True"):
        network.load(FeatureSettings(weights=str(tmp_path / "keras.h5")))


def test_a_file_without_a_convolution_is_refused(tmp_path: Path, state: State) -> None:
    write(tmp_path / "keras.h5", state, LAYOUTS["whole.h5"][:5])
    with pytest.raises(UserError, match=r"cannot be read as weights .*no layer block3_conv2"):
        network.load(FeatureSettings(weights=str(tmp_path / "keras.h5")))
