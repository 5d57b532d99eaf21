"""DiffAugment (Zhao et al. 2020): random changes of real and generated images alike.

D never sees an unchanged image, so it cannot learn a small data set by heart; G's gradient goes
through the same changes. Written from the paper's description (section 3, appendix A).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from featgan.gans.settings import Augmentation


def augment(images: Tensor, kinds: Sequence[Augmentation], random: torch.Generator) -> Tensor:
    """Each image [n, 3, S, S] changed in its own way, differentiably; as it is without `kinds`.

    `random` lies on the images' device.
    """
    for kind in kinds:
        images = _CHANGES[kind](images, random)
    return images


def color(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness moved by up to 1/2, saturation times 0..2, contrast times 1/2..3/2."""
    draws = torch.rand((3, len(images), 1, 1, 1), generator=random, device=images.device)
    brightness, saturation, contrast = draws.to(images.dtype)
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translation(images: Tensor, random: torch.Generator) -> Tensor:
    """Moved by whole pixels, up to an eighth of the side each way; grey comes in.

    As products with shifted identities: exact, and deterministic on a GPU, where the gradient
    of indexing is not for free.
    """
    side = images.shape[-1]
    reach = side // 8
    down, right = _integers(-reach, reach, images, random)
    place = torch.arange(side, device=images.device)
    identity = place[:, None] - place  # at [i, j]: how far pixel j has to go to reach i
    rows, columns = (
        (identity == shift[:, None, None]).to(images.dtype)[:, None] for shift in (down, right)
    )
    return rows @ images @ columns.mT


def cutout(images: Tensor, random: torch.Generator) -> Tensor:
    """A square of half the side, its centre anywhere in the image, made grey."""
    side = images.shape[-1]
    half = side // 4
    place = torch.arange(side, device=images.device)
    inside = [
        (place >= centre[:, None] - half) & (place < centre[:, None] + half)
        for centre in _integers(0, side, images, random)
    ]
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, 0.0)


def _integers(low: int, high: int, images: Tensor, random: torch.Generator) -> Tensor:
    """Two whole numbers in low..high for each image: [2, n]."""
    shape = (2, len(images))
    return torch.randint(low, high + 1, shape, generator=random, device=images.device)


_CHANGES: dict[Augmentation, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}
