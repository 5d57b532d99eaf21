"""Feature counts (paper, section 3): the number of positive outputs of VGG16's fc1.

Another network or layer can be counted instead. A count is a sum of thousands of decisions about
a sign, so networks compute in fp32 without TF32, in batches of one fixed size: kernels of other
batch sizes differ in the last bit, and a count must not depend on the images next to it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featgan.features import network, packaged
from featgan.features.settings import FeatureSettings
from featgan.weights import State

STATISTICS = {
    "torchvision": (
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "keras": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "lite": ((packaged.MEAN,) * 3, (packaged.DEVIATION,) * 3),
}
"""Means and deviations of the channels, red first, in grey levels."""


class FeatureCounter:
    """Counts the features of images on one device: 8 at a time on a CPU, 128 on a GPU."""

    def __init__(
        self, settings: FeatureSettings, device: torch.device, state: State | None = None
    ) -> None:
        """Build the network on `device`; `state` are weights that are loaded already."""
        self.device = device
        self.input_size = settings.input_size
        state = network.load(settings) if state is None else state
        self._network = network.build(settings, state).to(device)
        self._dtype = count_type(settings)
        preprocessing = settings.trained_with
        statistics = torch.tensor(STATISTICS[preprocessing], device=device)
        self._mean, self._deviation = statistics.view(2, 3, 1, 1)
        self._bgr = preprocessing == "keras"
        cpu = device.type == "cpu"
        self.batch = 8 if cpu else 128
        # on a CPU a quarter faster, even though the weights are contiguous
        self._layout = torch.channels_last if cpu else torch.contiguous_format

    def count(self, images: np.ndarray) -> np.ndarray:
        """Return the feature counts [n] of uint8 RGB images [n, 3, S, S]."""
        counts = [(outputs > 0).sum(dim=1) for outputs in self._batches(images)]
        if not counts:
            return np.empty(0, self._dtype)
        # read once at the end: on a GPU the next batch is copied while this one is counted
        return torch.cat(counts)[: len(images)].cpu().numpy().astype(self._dtype)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs that are counted, float32 [n, d], of uint8 RGB images [n, 3, S, S]."""
        return torch.cat([*self._batches(images)])[: len(images)].cpu().numpy()

    @torch.inference_mode()
    def _batches(self, images: np.ndarray) -> Iterator[Tensor]:
        """Yield outputs [batch, d] batch by batch; the last one is filled up with black images."""
        if images.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(f"images of shape {images.shape[1:]}, not of {self.input_size} pixels")
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            filled = np.zeros((self.batch, *images.shape[1:]), np.uint8)
            filled[: len(part)] = part
            batch = torch.from_numpy(filled)
            if self.device.type == "cuda":
                batch = batch.pin_memory()
            pixels = batch.to(self.device, non_blocking=True).float()
            pixels = (pixels - self._mean) / self._deviation
            pixels = pixels.contiguous(memory_format=self._layout)
            if self._bgr:
                pixels = pixels.flip(1)
            with torch.backends.cudnn.flags(True, False, deterministic=True, allow_tf32=False):
                yield self._network(pixels).flatten(1)


def count_type(settings: FeatureSettings) -> type[np.signedinteger[Any]]:
    """Return the smallest type that holds every count: int16 for VGG16 up to fc1."""
    return np.int16 if network.output_count(settings) <= np.iinfo(np.int16).max else np.int32
