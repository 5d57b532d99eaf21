"""VGG16 cut after its first fully connected layer, and the files its weights come from.

Weights are a dictionary by torchvision's names (`State`), so that one copy of them can be
shared by every network on a machine. Keras' files are translated to the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16

from featgan.errors import UserError
from featgan.features.settings import KERAS_SUFFIXES

State = dict[str, Tensor]

FEATURES = 4096
"""Outputs of the first fully connected layer: the largest possible count."""

URL = VGG16_Weights.IMAGENET1K_V1.url
"""Where torchvision publishes the weights."""


def vgg16_to_fc1(state: State) -> nn.Module:
    """The network [n, 3, s, s] -> [n, 4096] over these very tensors; nothing is copied."""
    network = _empty()
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def identity(weights: str, seed: int, url: str = URL) -> str:
    """What tells these weights from others: SHA-256 of the file, or the seed they are drawn from.

    Raises `UserError` where the file is missing, or is not the one torchvision published.
    """
    if weights == "random":
        return f"random, seed {seed}"
    path = weights_file(weights, url)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if weights == "imagenet" and not digest.startswith(_published_hash(url)):
        raise UserError(f"features.weights: {path} is damaged; delete it to download it anew")
    return digest


def load(weights: str, seed: int) -> State:
    """The weights up to fc1; raises `UserError` where they cannot be had or lack fc1."""
    return _random(seed) if weights == "random" else _read(weights_file(weights))


def weights_file(weights: str, url: str = URL) -> Path:
    """The file of `imagenet` (that of `url`, verified when it is downloaded) or of a path."""
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"features.weights: no file {path}; give imagenet, random or a file")
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), _published_hash(url), progress=False)
        # URLError and timeouts are OSErrors; a wrong hash is a RuntimeError
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"features.weights: imagenet could not be downloaded ({error}); fetch {url} on a "
                f"machine with access and put it at {path}, or give its path as features.weights"
            ) from error
    return path


def _published_hash(url: str) -> str:
    """The first digits of the SHA-256 of torchvision's file, from its name."""
    return Path(url).stem.rpartition("-")[2]


def _empty() -> nn.Module:
    """The network without memory for its parameters."""
    with torch.device("meta"):
        network = vgg16(weights=None, init_weights=False)
        network.classifier = network.classifier[:1]
    return network


def _random(seed: int) -> State:
    """Weights drawn as torchvision initialises VGG16, from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, empty in _empty().named_parameters():
        if name.endswith("bias"):
            state[name] = torch.zeros(empty.shape)
        else:
            fan_out = empty.shape[0] * 9  # 3x3 kernels
            deviation = (2 / fan_out) ** 0.5 if empty.ndim == 4 else 0.01
            state[name] = torch.empty(empty.shape).normal_(0, deviation, generator=generator)
    return state


def read_file(path: Path, network: str = "VGG16") -> State:
    """The tensors of a PyTorch or safetensors file, or of Keras' VGG16; nothing is checked yet."""
    readers: dict[str, Callable[[Path], State]] = {".safetensors": load_file}
    if network == "VGG16":
        readers |= dict.fromkeys(KERAS_SUFFIXES, _read_keras)
    try:
        found = readers.get(path.suffix, _read_torch)(path)
        if not isinstance(found, dict) or not all(map(torch.is_tensor, found.values())):
            raise ValueError("it holds something else than named tensors")
        return found
    # what a reader raises on a foreign file is its own business: pickle, zip, HDF5, header, …
    except Exception as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"features.weights: {path} cannot be read as {network} ({reason})"
        ) from error


def _read(path: Path) -> State:
    """The parameters up to fc1 of a file of torchvision's or Keras' VGG16."""
    found = read_file(path)
    wanted = {name: empty.shape for name, empty in _empty().named_parameters()}
    wrong = [
        name for name, shape in wanted.items() if name not in found or found[name].shape != shape
    ]
    if not wrong:
        state = {name: found[name].float().contiguous() for name in wanted}
        wrong = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if wrong and all(name.startswith("classifier.0") for name in wrong):
        raise UserError(
            f"features.weights: {path} lacks VGG16's first fully connected layer (classifier.0, in "
            "Keras fc1), whose outputs are counted; IMAGENET1K_FEATURES and Keras' "
            "include_top=False hold only the convolutions: use IMAGENET1K_V1 or include_top=True"
        )
    if wrong:
        raise UserError(
            f"features.weights: {path} is not VGG16's: {wrong[0]} is missing or differs"
        )
    return state


def _read_torch(path: Path) -> State:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_keras(path: Path) -> State:
    """A Keras file, of `save`, `save_weights` or keras.applications; channels are last there."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"features.weights: reading {path} needs h5py; pip install 'featgan[keras]'"
        ) from error
    state: State = {}
    convolutions = [name for name, tensor in _empty().named_parameters() if tensor.ndim == 4]
    blocks = [
        (block, place) for block, n in enumerate((2, 2, 3, 3, 3), 1) for place in range(1, n + 1)
    ]
    with h5py.File(path, "r") as file:
        for number, (name, (block, place)) in enumerate(zip(convolutions, blocks, strict=True)):
            plain = "conv2d" + (f"_{number}" if number else "")
            kernel, bias = _keras_layer(file, f"block{block}_conv{place}", plain)
            state[name] = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
            state[name.replace("weight", "bias")] = torch.from_numpy(bias)
        with suppress(KeyError):  # include_top=False; what is missing is told by who asked
            kernel, bias = _keras_layer(file, "fc1", "dense")
            # Keras flattens [7, 7, 512], torchvision [512, 7, 7]
            kernel = kernel.reshape(7, 7, 512, FEATURES).transpose(3, 2, 0, 1)
            state["classifier.0.weight"] = torch.from_numpy(kernel.reshape(FEATURES, -1))
            state["classifier.0.bias"] = torch.from_numpy(bias)
    return state


def _keras_layer(file: Any, name: str, plain: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer: by its name, or in Keras 3's `.weights.h5` by its kind."""
    places = (name, f"model_weights/{name}", f"layers/{name}", f"layers/{plain}")
    arrays: list[np.ndarray] = []
    for place in places:
        if place in file:
            file[place].visititems(
                lambda _, item: arrays.append(item[()]) if hasattr(item, "shape") else None
            )
            break
    kernels, biases = [a for a in arrays if a.ndim > 1], [a for a in arrays if a.ndim == 1]
    if len(kernels) != 1 or len(biases) != 1:
        raise KeyError(f"no layer {name}")
    return kernels[0], biases[0]
