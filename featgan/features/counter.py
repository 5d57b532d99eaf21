"""Feature counts (paper, section 3): how many outputs of VGG16's first full layer are positive.

Another network or layer may be counted instead. A count is a sum of thousands of decisions about
a sign, so everything here is fp32, without TF32, in batches of one fixed size: kernels differ in
the last bit from one batch size to another, and a count must not depend on the images it happens
to be counted with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featgan.features import network as backbones
from featgan.features import vgg
from featgan.features.settings import FeatureSettings

MEANS = {
    "torchvision": (0.485 * 255, 0.456 * 255, 0.406 * 255),
    "keras": (123.68, 116.779, 103.939),
}
"""Of ImageNet's channels, red first, in units of a byte."""
DEVIATIONS = {"torchvision": (0.229 * 255, 0.224 * 255, 0.225 * 255), "keras": (1.0, 1.0, 1.0)}


class FeatureCounter:
    """Counts the features of images, on one device; 8 at a time on a CPU, 128 on a GPU."""

    def __init__(
        self, settings: FeatureSettings, device: torch.device, state: vgg.State | None = None
    ) -> None:
        """Load the weights, or share `state` where another has loaded them on this machine."""
        self.device = device
        self.batch = 8 if device.type == "cpu" else 128
        self.input_size = settings.input_size
        state = backbones.load(settings) if state is None else state
        self._network = backbones.build(settings, state).to(device)
        self._kind = count_type(settings)
        self._mean = _channels(MEANS[settings.trained_with], device)
        self._deviation = _channels(DEVIATIONS[settings.trained_with], device)
        self._bgr = settings.trained_with == "keras"
        # on a CPU a quarter faster, also with weights that lie the other way
        cpu = device.type == "cpu"
        self._layout = torch.channels_last if cpu else torch.contiguous_format

    def count(self, images: np.ndarray) -> np.ndarray:
        """The feature count of each image: uint8 RGB [n, 3, s, s] -> integers [n]."""
        counts = [(outputs > 0).sum(dim=1) for outputs in self._batches(images)]
        if not counts:
            return np.empty(0, self._kind)
        # read once at the end: on a GPU the next batch is copied while this one is counted
        return torch.cat(counts)[: len(images)].cpu().numpy().astype(self._kind)

    def features(self, images: np.ndarray) -> np.ndarray:
        """The outputs that are counted: uint8 RGB [n, 3, s, s] -> float32 [n, d]."""
        return torch.cat([*self._batches(images)])[: len(images)].cpu().numpy()

    def _batches(self, images: np.ndarray) -> Iterator[Tensor]:
        """Outputs [batch, d] of one batch after the other, the last one filled up with black."""
        if images.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(f"images of shape {images.shape[1:]}, not of {self.input_size} pixels")
        for start in range(0, len(images), self.batch):
            yield self._outputs(images[start : start + self.batch])

    @torch.inference_mode()
    def _outputs(self, images: np.ndarray) -> Tensor:
        filled = np.zeros((self.batch, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        batch = torch.from_numpy(filled)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        pixels = batch.to(self.device, non_blocking=True).float()
        pixels = ((pixels - self._mean) / self._deviation).contiguous(memory_format=self._layout)
        if self._bgr:
            pixels = pixels.flip(1)
        with torch.backends.cudnn.flags(True, False, deterministic=True, allow_tf32=False):
            return self._network(pixels).flatten(1)


def count_type(settings: FeatureSettings) -> type[np.signedinteger[Any]]:
    """The smallest type that holds every count: int16 for VGG16 up to fc1."""
    return np.int16 if backbones.outputs(settings) <= np.iinfo(np.int16).max else np.int32


def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)
