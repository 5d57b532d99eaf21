"""Corruption of a data set: images that are others' copies, blurred or compressed; wrong labels."""

import io
from collections.abc import Callable
from typing import Annotated

from PIL import ImageFilter
from pydantic import Field

from featgan.images.decode import decode
from featgan.settings import Settings


class Corruption(Settings):
    """Shares of the images that are corrupted, each drawn independently by `seed`."""

    mixed: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field({}, max_length=1)
    """For a `union`: one of its `sources`, and the share of the others' images that are replaced by
    images of it."""
    duplicate: float = Field(0.0, ge=0, lt=1)
    """Share of the images that are replaced by copies of others."""
    blur: float = Field(0.0, ge=0, le=1)
    """Share of the images that are blurred."""
    blur_radius: float = Field(0.02, gt=0, le=1)
    """Standard deviation of the Gaussian blur, as a share of the image's shorter side."""
    jpeg: float = Field(0.0, ge=0, le=1)
    """Share of the images that are compressed as JPEG, after any blur."""
    jpeg_quality: int = Field(10, ge=1, le=95)
    """Pillow's quality of these JPEGs."""
    labels: float = Field(0.0, ge=0, le=1)
    """For conditional GANs: share of the labels that are replaced by another one of the data set.
    The scoring classifier is trained on the clean ones."""
    seed: int = Field(0, ge=0)
    """Draws the images that are corrupted."""

    def reader(self, read: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """Return a reader of `Listing.corrupted` locations, from one of the source's own.

        A location begins with the kinds of the image's corruption and a colon.
        """

        def corrupted(location: bytes) -> bytes:
            kinds, _, place = location.partition(b":")
            data = read(place)
            if not kinds:
                return data
            image, file = decode(data), io.BytesIO()
            if b"blur" in kinds:
                radius = self.blur_radius * min(image.size)
                image = image.filter(ImageFilter.GaussianBlur(radius))
            image.save(file, "JPEG" if b"jpeg" in kinds else "PPM", quality=self.jpeg_quality)
            return file.getvalue()

        return corrupted
