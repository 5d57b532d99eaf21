"""The real images of a run: where they lie, and in which batches an epoch meets them.

Images stay uint8, on the device where they fit, and become floats one batch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from featgan.seeds import derive, stream
from featgan.staging.modes import RANDOM
from featgan.staging.stages import Stage

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that images may take; beyond it they stay memory-mapped."""
RESIDENT_BYTES = 2**30
"""What images may take in a process on a CPU; the page cache serves what is larger."""


class Images(Protocol):
    """Rows of uint8 images, as `featgan.images.ImagePack` has them."""

    size: int

    def __len__(self) -> int: ...

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), 3, size, size]."""


class Batches:
    """Batches of the images whose group a stage trains on."""

    def __init__(
        self,
        images: Images,
        groups: np.ndarray,
        *,
        batch_size: int,
        epoch_steps: int | None,
        horizontal_flip: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        """`groups` [len(images)] holds the group number of every image."""
        if len(groups) != len(images):
            raise ValueError(f"{len(groups)} group numbers for {len(images)} images")
        self._images, self._groups = images, groups
        self._batch_size, self._epoch_steps = batch_size, epoch_steps
        self._flip, self._seed, self._device = horizontal_flip, seed, device
        self._resident = self._load() if self._fits() else None

    def count(self, stage: Stage) -> int:
        """Images of the stage's groups."""
        return len(self.rows(stage))

    def rows(self, stage: Stage) -> Tensor:
        """Rows of the images of the stage's groups."""
        return torch.from_numpy(np.flatnonzero(np.isin(self._groups, stage.groups)))

    def epoch(
        self, stage: Stage, epoch: int, chances: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: images [batch, 3, S, S] in [-1, 1], channels last; their rows.

        A full pass meets every image at least once: where the batch size does not divide
        their number, the last batch is filled up from the start of the pass. With `chances`
        [len(images)] each image is drawn with its chance instead, as often as that comes.
        """
        rows = self.rows(stage)
        if len(rows) == 0:
            raise ValueError(f"no image in groups {stage.groups}")
        steps = self._epoch_steps or math.ceil(len(rows) / self._batch_size)
        wanted, random = steps * self._batch_size, stream(self._seed, "order", stage.number, epoch)
        if chances is None:
            order = torch.randperm(len(rows), generator=random)
            picks = order.repeat(math.ceil(wanted / len(rows)))[:wanted]
        else:
            picks = torch.multinomial(chances[rows], wanted, replacement=True, generator=random)
        picks = rows[picks].view(steps, -1)
        there = on_device(picks, self._device)
        mirror = self._mirror(stage, epoch, picks.shape) if self._flip else None
        for step, batch in enumerate(there):
            images = self._read(picks[step]) if self._resident is None else self._resident[batch]
            images = images.permute(0, 3, 1, 2)
            if mirror is not None:
                images = torch.where(mirror[step, :, None, None, None], images.flip(3), images)
            yield images.float().mul_(1 / 127.5).sub_(1), batch

    def _mirror(self, stage: Stage, epoch: int, shape: torch.Size) -> Tensor:
        """Which images of the epoch's batches are mirrored: bool [steps, batch] on the device."""
        random = stream(self._seed, "flip", stage.number, epoch)
        return on_device(torch.rand(shape, generator=random) < 0.5, self._device)

    def _read(self, rows: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] on the device."""
        images = on_device(torch.from_numpy(self._images.rows(rows.numpy())), self._device)
        return images.permute(0, 2, 3, 1).contiguous()

    def _load(self) -> Tensor:
        """All images as uint8 [n, S, S, 3] on the device."""
        size, count = self._images.size, len(self._images)
        resident = torch.empty((count, size, size, 3), dtype=torch.uint8, device=self._device)
        for start in range(0, count, 1024):
            rows = np.arange(start, min(start + 1024, count))
            part = torch.from_numpy(self._images.rows(rows))
            resident[start : start + len(rows)] = part.permute(0, 2, 3, 1).to(self._device)
        return resident

    def _fits(self) -> bool:
        room: float = RESIDENT_BYTES
        if self._device.type == "cuda":
            room = RESIDENT_SHARE * torch.cuda.mem_get_info(self._device)[0]
        return resident_bytes(len(self._images), self._images.size, room) > 0


def shuffled_if_random(groups: np.ndarray, mode: str, seed: int) -> np.ndarray:
    """Return group numbers [n] as `mode` uses them.

    The mode `random` shuffles them, as a function of `seed`: groups of the same sizes that do
    not depend on the images.
    """
    if mode != RANDOM:
        return groups
    return np.random.default_rng(derive(seed, "random groups")).permutation(groups)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Values copied to a device; a GPU goes on with earlier steps meanwhile."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def resident_bytes(count: int, size: int, room: float) -> int:
    """Bytes that images of `size` pixels take in memory; 0 where they exceed `room`, and stay
    memory-mapped."""
    needed = count * 3 * size**2
    return needed if needed <= room else 0
