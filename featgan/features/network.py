"""The network whose outputs are counted, cut after a layer: torchvision's, or the packaged one.

A layer has the name that torchvision's feature extraction gives it. The weights of the remaining
network are a dictionary (`State`), so that one copy can be shared by all processes of a machine.
torchvision, whose import takes as long as PyTorch's, is imported where a network is built: a data
set that is counted is known by its weights alone.
"""

from copy import deepcopy
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from featgan.errors import UserError, first_line
from featgan.features import packaged
from featgan.features.keras_weights import read_keras_vgg16
from featgan.features.settings import KERAS_SUFFIXES, PACKAGED, FeatureSettings
from featgan.weights import State, read_weights, weights_file

SETTING = "features.weights"
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": True},
    "inception_v3": {"transform_input": True, "init_weights": True},
}
"""Options with which the published weights of a network were trained."""


EMPTY: dict[FeatureSettings, GraphModule] = {}
"""Networks without weights. A worker is given its driver's, which spares it torchvision."""


def empty(settings: FeatureSettings) -> GraphModule:
    """Return the network without parameters in memory: pixels [n, 3, S, S] -> outputs [n, …].

    Raises `UserError` if there is no such network or layer.
    """
    if settings in EMPTY:
        return EMPTY[settings]
    from torchvision.models import feature_extraction

    with torch.device("meta"):
        network = _whole(settings).eval()
    layer = settings.layer
    # training differs, by dropout for instance, and is not used
    names = feature_extraction.get_graph_node_names(network, suppress_diff_warning=True)[1]
    if not any(f"{name}.".startswith(f"{layer}.") for name in names):
        near = ", ".join(get_close_matches(layer, names, n=4, cutoff=0.3) or names[-4:])
        raise UserError(f"features.layer: {settings.network} has no {layer!r}; near: {near}")
    found = feature_extraction.create_feature_extractor(
        network, [layer], suppress_diff_warning=True
    )
    output = next(reversed(found.graph.nodes))
    output.args = (*output.args[0].values(),)  # not a dictionary of them
    found.graph._tracer_cls = None  # torchvision's, which would be loaded with the network
    EMPTY[settings] = GraphModule(found, found.graph)
    return EMPTY[settings]


def build(settings: FeatureSettings, state: State) -> nn.Module:
    """Return the network [n, 3, S, S] -> [n, …] with these very tensors; nothing is copied."""
    network = deepcopy(empty(settings))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def load(settings: FeatureSettings, setting: str = SETTING) -> State:
    """Load or draw the weights up to the layer.

    Raises `UserError`, which names `setting`, if they cannot be read or are another network's.
    """
    wanted = empty(settings).state_dict()
    if settings.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)
            found = _whole(settings).state_dict()
    else:
        file, _ = _file(settings, setting)
        keras = settings.network == "vgg16" and file.suffix in KERAS_SUFFIXES
        found = read_weights(file, setting, read_keras_vgg16 if keras else None)
    for name, parameter in wanted.items():
        fits = name in found and found[name].shape == parameter.shape
        if not (fits and found[name].isfinite().all()):
            cause = f"{name} is missing, not finite or of another shape"
            if settings.network == "vgg16" and name.startswith(f"{settings.layer}."):
                cause += "; torchvision's IMAGENET1K_FEATURES and Keras' include_top=False hold"
                cause += " only the layers before it: use IMAGENET1K_V1 or include_top=True"
            raise UserError(f"{setting}: {settings.weights} is not {settings.network}'s: {cause}")
    return {name: found[name].to(wanted[name].dtype).contiguous() for name in wanted}


def identity(settings: FeatureSettings) -> str:
    """Return the SHA-256 of the weights' file, or the seed of random weights.

    Raises `UserError` if there is no such network or file, or the file is damaged.
    """
    return f"random, seed {settings.seed}" if settings.weights == "random" else _file(settings)[1]


@lru_cache(8)
def output_count(settings: FeatureSettings) -> int:
    """Return the number of outputs of the layer for one image, the largest possible count.

    Raises `UserError` if there is no such network or layer, or the network cannot take images of
    `input_size`.
    """
    network, size = empty(settings), settings.input_size
    try:
        found = network(torch.empty((2, 3, size, size), device="meta"))
    # networks raise an AssertionError, a RuntimeError, … for a size that they cannot take
    except Exception as error:
        raise UserError(
            f"features.input_size: {settings.network} does not take {size} pixels "
            f"({first_line(error)})"
        ) from error
    if not isinstance(found, Tensor) or len(found) != 2:
        raise UserError(f"features.layer: {settings.layer} does not have outputs for each image")
    return found[0].numel()


def _whole(settings: FeatureSettings) -> nn.Module:
    """Return the network with random weights."""
    name = settings.network
    if name == PACKAGED[0]:
        return packaged.build(settings.input_size)
    return _models(name).get_model(name, weights=None, **OPTIONS.get(name, {}))


def _file(settings: FeatureSettings, setting: str = SETTING) -> tuple[Path, str]:
    """Return the weights' file and SHA-256; `imagenet` is torchvision's first for the network."""
    path, url = settings.weights, ""
    if path == "packaged":
        path = str(packaged.weights_path())
    elif settings.network != PACKAGED[0]:
        published = _models(settings.network).get_model_weights(settings.network)
        url = getattr(published, "IMAGENET1K_V1", published.DEFAULT).url
    return weights_file(None if path == "imagenet" else path, url, setting)


def _models(name: str) -> Any:
    """Return torchvision's module of classifiers; `UserError` if it has none of this name."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(get_close_matches(name, [*known, PACKAGED[0]], n=4, cutoff=0.4) or known)
        raise UserError(f"features.network: torchvision has no classifier {name!r}; near: {near}")
    return models
