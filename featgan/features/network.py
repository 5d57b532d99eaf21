"""The network whose outputs are counted: VGG16 up to fc1, or any classifier of torchvision's.

A layer is named as torchvision's feature extraction names it, and the network ends there. Weights
are a dictionary (`vgg.State`) of what is left of the network, so that one copy can be shared.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from featgan.errors import UserError
from featgan.features import vgg
from featgan.features.settings import PAPER_LAYER, FeatureSettings
from featgan.features.vgg import State

_OPTIONS = {name: {"transform_input": True} for name in ("googlenet", "inception_v3")}
"""What the published weights of a network were trained with."""


def build(settings: FeatureSettings, state: State) -> nn.Module:
    """The network [n, 3, s, s] -> [n, …] over these very tensors; nothing is copied."""
    if _is_papers(settings):
        return vgg.vgg16_to_fc1(state)
    network = _Cut(_empty(settings), settings.layer)
    network.extractor.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def load(settings: FeatureSettings) -> State:
    """The weights up to the layer; raises `UserError` where they cannot be had or do not fit."""
    if _is_papers(settings):
        return vgg.load(settings.weights, settings.seed)
    wanted = _Cut(_empty(settings), settings.layer).extractor.state_dict()
    if settings.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)
            found = _model(settings.network, init_weights=True).state_dict()
    else:
        path = vgg.weights_file(settings.weights, _url(settings))
        found = vgg.read_file(path, settings.network)
    for name, empty in wanted.items():
        fits = name in found and found[name].shape == empty.shape
        if not (fits and found[name].isfinite().all()):
            raise UserError(
                f"features.weights: {settings.weights} is not of {settings.network}: {name} is "
                "missing or differs"
            )
    return {name: found[name].to(empty.dtype).contiguous() for name, empty in wanted.items()}


def identity(settings: FeatureSettings) -> str:
    """What tells these weights from others: SHA-256 of the file, or the seed they are drawn from.

    Raises `UserError` for an unknown network, or where the file is missing or damaged.
    """
    url = vgg.URL if _is_papers(settings) else _url(settings)
    return vgg.identity(settings.weights, settings.seed, url)


def outputs(settings: FeatureSettings) -> int:
    """How many outputs the layer has for one image: the largest possible count.

    Raises `UserError` where there is no such network or layer, or the network cannot take images
    of `input_size`.
    """
    if _is_papers(settings):
        return vgg.FEATURES
    network = _Cut(_empty(settings), settings.layer)
    size = settings.input_size
    try:
        found = network(torch.empty((2, 3, size, size), device="meta"))
    # a network that cannot take this size says so in its own way: an assertion, a RuntimeError, …
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"features.input_size: {settings.network} does not take {size} pixels ({reason})"
        ) from error
    if not isinstance(found, Tensor) or len(found) != 2:
        raise UserError(f"features.layer: {settings.layer} does not give numbers for each image")
    return found[0].numel()


class _Cut(nn.Module):
    """A network that ends at a layer."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        names = get_graph_node_names(model)[1]
        if not any(f"{name}.".startswith(f"{layer}.") for name in names):
            near = difflib.get_close_matches(layer, names, n=4, cutoff=0.3) or names[-4:]
            raise UserError(
                f"features.layer: no {layer!r} in this network; near: {', '.join(near)}"
            )
        self.extractor = create_feature_extractor(model, {layer: "outputs"})

    def forward(self, pixels: Tensor) -> Tensor:
        return self.extractor(pixels)["outputs"]


def _empty(settings: FeatureSettings) -> nn.Module:
    """The whole network without memory for its parameters, in eval mode."""
    with torch.device("meta"):
        return _model(settings.network, init_weights=False).eval()


def _model(name: str, init_weights: bool) -> Any:
    _check_name(name)
    options: dict[str, Any] = dict(_OPTIONS.get(name, {}))
    if options:  # these two warn where nothing is said of it
        options["init_weights"] = init_weights
    return torchvision.models.get_model(name, weights=None, **options)


def _url(settings: FeatureSettings) -> str:
    """Where torchvision publishes the network's first weights for ImageNet."""
    _check_name(settings.network)
    published = torchvision.models.get_model_weights(settings.network)
    return str(getattr(published, "IMAGENET1K_V1", published.DEFAULT).url)


def _check_name(name: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=4, cutoff=0.4) or known)
        raise UserError(f"features.network: torchvision has no classifier {name!r}; near: {near}")


def _is_papers(settings: FeatureSettings) -> bool:
    return (settings.network, settings.layer) == PAPER_LAYER
