"""DiffAugment (Zhao et al. 2020): random changes of both real and generated images.

D never sees an unchanged image, so it cannot memorise a small data set; G's gradient passes
through the same changes. Written from the paper's description (section 3, appendix A).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from featgan.gans.settings import Augmentation


def augment(images: Tensor, kinds: Sequence[Augmentation], random: torch.Generator) -> Tensor:
    """Return images [n, 3, S, S], each changed at random; unchanged without `kinds`.

    The changes are differentiable, and turn bf16 into fp32. `random` is on the images' device.
    """
    if kinds:
        images = images.to(torch.promote_types(images.dtype, torch.float32))
    for kind in kinds:
        images = _CHANGES[kind](images, random)
    return images


def color(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift brightness by up to 1/2; multiply saturation by 0..2 and contrast by 1/2..3/2."""
    draws = torch.rand((3, len(images), 1, 1, 1), generator=random, device=images.device)
    brightness, saturation, contrast = draws.to(images.dtype)
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translation(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift by whole pixels, up to an eighth of the side each way; fill with grey.

    Multiplies by shifted identity matrices: exact, and deterministic on a GPU, where a
    deterministic gradient of indexing would cost time.
    """
    side = images.shape[-1]
    reach = side // 8
    down, right = _integers(-reach, reach, images, random)
    place = torch.arange(side, device=images.device)
    identity = place[:, None] - place  # at [i, j]: the shift from pixel j to pixel i
    rows, columns = (
        (identity == shift[:, None, None]).to(images.dtype)[:, None] for shift in (down, right)
    )
    return rows @ images @ columns.mT


def cutout(images: Tensor, random: torch.Generator) -> Tensor:
    """Fill a square of half the side, with its centre anywhere in the image, with grey."""
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
    """Return two integers in low..high for each image: [2, n]."""
    shape = (2, len(images))
    return torch.randint(low, high + 1, shape, generator=random, device=images.device)


_CHANGES = {change.__name__: change for change in (color, translation, cutout)}
