"""The real images of a run, and the batches of an epoch.

Images stay uint8, on the device if they fit, and are converted to floats one batch at a time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from featgan.seeds import derive, stream
from featgan.settings import TrainingSettings
from featgan.staging.modes import RANDOM
from featgan.staging.stages import Stage

RESIDENT_SHARE = 0.25
"""Largest share of a GPU's free memory for images; larger sets stay memory-mapped."""
RESIDENT_BYTES = 2**30
"""Largest image set kept in CPU memory; larger sets stay memory-mapped."""


class Images(Protocol):
    """Rows of uint8 images, such as `featgan.images.pack.ImagePack`."""

    size: int

    def __len__(self) -> int: ...

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of `rows`: uint8 [len(rows), 3, size, size]."""


@dataclass(eq=False)
class Batches:
    """Batches of the images in the groups of a stage; images stay in memory if they fit."""

    images: Images
    groups: np.ndarray
    """The group number of each image: [len(images)]; 0: in no group, so not trained on."""
    training: TrainingSettings
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.images):
            raise ValueError(f"{len(self.groups)} group numbers for {len(self.images)} images")
        self._resident = self._load()
        self.seen = torch.zeros(len(self.groups), dtype=torch.bool)
        """Images that any epoch has had so far."""

    def rows(self, stage: Stage) -> Tensor:
        """Return the rows of the images in the stage's groups."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.groups, stage.groups)))

    def steps(self, stage: Stage) -> int:
        """Return the number of steps of an epoch."""
        return self.training.epoch_steps or math.ceil(
            len(self.rows(stage)) / self.training.batch_size
        )

    def epoch(
        self,
        stage: Stage,
        epoch: int,
        chances: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch: images [batch, 3, S, S] in [-1, 1], and their rows.

        Images are channels last. A full pass has every image at least once: if the batch size
        does not divide their number, the last batch is filled from the start of the pass. With
        `chances` [len(images)] images are drawn with replacement, in proportion to their chance.
        `rows` replace those of the stage.
        """
        rows, batch_size = self.rows(stage) if rows is None else rows, self.training.batch_size
        if len(rows) == 0:
            raise ValueError(f"no image in groups {stage.groups}")
        steps = self.steps(stage)
        count, random = steps * batch_size, stream(self.seed, "order", stage.number, epoch)
        if chances is None:
            order = torch.randperm(len(rows), generator=random)
            picks = order.repeat(math.ceil(count / len(rows)))[:count]
        else:
            picks = torch.multinomial(chances[rows], count, replacement=True, generator=random)
        picks = rows[picks].view(steps, batch_size)
        self.seen[picks] = True
        picks_on_device = on_device(picks, self.device)
        if self.training.horizontal_flip:
            random = stream(self.seed, "flip", stage.number, epoch)
            mirror = on_device(torch.rand(picks.shape, generator=random) < 0.5, self.device)
        for step, batch in enumerate(picks_on_device):
            images = self._read(picks[step], batch)
            if self.training.horizontal_flip:
                images = torch.where(mirror[step, :, None, None, None], images.flip(3), images)
            yield images.float().mul_(1 / 127.5).sub_(1), batch

    def in_order(self, groups: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images of groups once, as `epoch` does, but as they are and by their rows."""
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.groups, groups)))
        for part in rows.split(self.training.batch_size):
            batch = on_device(part, self.device)
            yield self._read(part, batch).float().mul_(1 / 127.5).sub_(1), batch

    def _read(self, rows: Tensor, batch: Tensor) -> Tensor:
        """Return uint8 images [n, 3, S, S], channels last; `batch` is `rows` on the device."""
        if self._resident is not None:
            images = self._resident[batch]
        else:
            images = on_device(_channels_last(self.images.rows(rows.numpy())), self.device)
        return images.permute(0, 3, 1, 2)

    def _load(self) -> Tensor | None:
        """Return all images as uint8 [n, S, S, 3] on the device; None if they take too much."""
        size, count = self.images.size, len(self.images)
        room: float = RESIDENT_BYTES
        if self.device.type == "cuda":
            room = RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0]
        if count * 3 * size**2 > room:
            return None
        resident = torch.empty((count, size, size, 3), dtype=torch.uint8, device=self.device)
        for start in range(0, count, 1024):
            rows = np.arange(start, min(start + 1024, count))
            part = torch.from_numpy(self.images.rows(rows))
            resident[start : start + len(rows)] = part.permute(0, 2, 3, 1).to(self.device)
        return resident


def _channels_last(images: np.ndarray) -> Tensor:
    """Return images [n, 3, S, S] as [n, S, S, 3]; a channel at a time is four times as fast."""
    last = np.empty_like(images.transpose(0, 2, 3, 1), order="C")
    for channel in range(3):
        last[..., channel] = images[:, channel]
    return torch.from_numpy(last)


def shuffled_if_random(groups: np.ndarray, mode: str, seed: int) -> np.ndarray:
    """Return group numbers [n] as `mode` uses them.

    The mode `random` shuffles them, as a function of `seed`: groups of the same sizes that do
    not depend on the images.
    """
    if mode != RANDOM:
        return groups
    return np.random.default_rng(derive(seed, "random groups")).permutation(groups)


def regrouped(groups: np.ndarray, values: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return group numbers [n] with the images of the groups `order` dealt out to these again.

    `values` are those of these images, by their rows. The lowest go to the first group; of equal
    ones, the first image. Each group keeps its size.
    """
    rows = np.flatnonzero(np.isin(groups, order))
    sizes = [np.count_nonzero(groups == number) for number in order]
    found = groups.copy()
    found[rows[np.argsort(values, kind="stable")]] = np.repeat(order, sizes)
    return found


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values copied to a device, without waiting for earlier steps on a GPU."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
