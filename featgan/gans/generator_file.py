"""The file of a trained generator: its weights, settings and image size."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featgan import tensor_file
from featgan.errors import UserError, first_line
from featgan.gans.registry import NETWORKS, untrained_networks
from featgan.gans.settings import GanSettings

KIND = "featgan generator 1"


@dataclass(frozen=True)
class SavedGenerator:
    """A generator in eval mode, with the settings and image size that it was built from."""

    network: nn.Module
    gan: GanSettings
    image_size: int
    classes: dict[str, int]
    """Classes of a conditional generator, and the data set's number of images of each."""


def generator_bytes(
    network: nn.Module, gan: GanSettings, image_size: int, classes: Mapping[str, int] | None = None
) -> bytes:
    """Return the bytes of a generator's file."""
    header: dict[str, Any] = {"gan": gan.model_dump(), "image_size": image_size}
    header["classes"] = [*(classes or {}).items()]
    return tensor_file.dump(KIND, header, network.state_dict())


def load_generator(
    path: str | Path, device: torch.device | str = "cpu", networks: Collection[str] = ()
) -> SavedGenerator:
    """Load the generator of a file that holds what `generator_bytes` returned.

    A file must not decide which code is imported: if its network is a user-defined
    `module:function`, that name has to be among `networks`. Raises UserError if it is not, or
    if the file is damaged or of another kind.
    """
    header, weights, _ = tensor_file.read(path, KIND, "give the generator.safetensors of a run")
    try:
        gan, image_size = GanSettings(**header["gan"]), int(header["image_size"])
        classes = {str(name): int(images) for name, images in header["classes"]}
    except (KeyError, TypeError, ValueError) as error:  # a ValidationError is a ValueError
        raise UserError(f"{path}: invalid settings of a generator ({first_line(error)})") from error
    is_known = gan.network in NETWORKS
    if not is_known and gan.network not in networks:
        raise UserError(
            f"{path}: made by {gan.network!r}, code that is imported only if you name it: "
            f"--network {gan.network}"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta" if is_known else "cpu"):
        network, _ = untrained_networks(gan, image_size, len(classes))
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise UserError(f"{path}: not weights of {gan.network!r} ({first_line(error)})") from error
    return SavedGenerator(network.to(device).eval(), gan, image_size, classes)
