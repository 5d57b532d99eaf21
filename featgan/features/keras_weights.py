"""Read Keras' VGG16 from its HDF5 files, under torchvision's names."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featgan.errors import INSTALL, UserError
from featgan.weights import State

CONVOLUTIONS = {
    f"block{block}_conv{place}": number
    for block, numbers in enumerate(
        [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)], start=1
    )
    for place, number in enumerate(numbers, start=1)
}
"""Keras' names of the convolutions, and their positions in torchvision's `features`."""


def read_keras_vgg16(path: Path) -> State:
    """Return the tensors up to fc1 of a file of `save`, `save_weights` or keras.applications.

    A file made with `include_top=False` has no fc1. Raises `KeyError` if a convolution is missing,
    and `UserError` if h5py is.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"features.weights: reading {path} needs h5py: {INSTALL.format('keras')}"
        ) from error
    state: State = {}
    with h5py.File(path, "r") as file:
        for index, (name, number) in enumerate(CONVOLUTIONS.items()):
            kernel, bias = _layer(file, name, f"conv2d_{index}" if index else "conv2d")
            state[f"features.{number}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
            state[f"features.{number}.bias"] = torch.from_numpy(bias)
        with suppress(KeyError):
            kernel, bias = _layer(file, "fc1", "dense")
            # Keras flattens [7, 7, 512], torchvision [512, 7, 7]
            kernel = kernel.reshape(7, 7, 512, -1).transpose(3, 2, 0, 1)
            state["classifier.0.weight"] = torch.from_numpy(kernel.reshape(len(kernel), -1))
            state["classifier.0.bias"] = torch.from_numpy(bias)
    return state


def _layer(file: Any, name: str, name_by_kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a layer; Keras 3's `.weights.h5` names it by its kind."""
    places = (name, f"model_weights/{name}", f"layers/{name}", f"layers/{name_by_kind}")
    arrays: list[np.ndarray] = []
    for place in [place for place in places if place in file][:1]:
        file[place].visititems(
            lambda _, item: arrays.append(item[()]) if hasattr(item, "shape") else None
        )
    if sorted(array.ndim > 1 for array in arrays) != [False, True]:
        raise KeyError(f"no layer {name}")
    bias, kernel = sorted(arrays, key=lambda array: array.ndim)
    return kernel, bias
