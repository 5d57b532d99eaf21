"""Decoding of image files, and the squares that networks see.

`decode` is the one place that decides which files are good images; docs/images.md has its table.
"""

import hashlib
import io
import re
import warnings
from contextlib import suppress

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from featgan.errors import first_line

RESIZE = "central square, Pillow bicubic"
"""Name of what `square` does, for protocols."""
DECODING = 4
"""Version of `decode` and `square`; raise it when pixels change, so that images are recounted."""

MIN_SIDE = 8
"""Shortest side of a usable image in pixels: that of scikit-learn's digits."""
MAX_ASPECT = 10
"""Largest ratio of a usable image's sides: beyond it the central square shows next to nothing."""
MAX_PIXELS = 89_478_485
"""Pixels of the largest usable image, Pillow's own limit: 341 MiB as Pillow holds RGB. Half as
many for WebP, AVIF, HEIF and CMYK, whose decoders hold several copies."""
FORMATS: tuple[str, ...] = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are opened, by content; for some others Pillow would start other programs."""
with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    FORMATS += ("HEIF",)
HINTS = {
    rb"....ftyp(he[iv]|mif1|msf1)": "HEIC needs `pip install pillow-heif`",
    rb"version https://git-lfs": "a Git LFS pointer, run `git lfs pull`",
    rb"\s*<(?i:!doctype html|html)": "a web page",
}
"""What often comes instead of an image that can be read, by how it begins."""
SIXTEEN_BITS = ("PNG", "PPM")
"""Formats that hold at most 16 bits, though Pillow may open them in its mode of 32."""
MOST_SCANS = 100
"""Scans of the largest usable JPEG, each a pass over all pixels; photographs have up to a dozen."""
STRIP = 128
"""Rows of an image that are converted at a time."""

# Unpacked text of a PNG: colour profiles and edit histories exceed Pillow's default of 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 2**24


class BadImage(ValueError):
    """These bytes are not a usable image; the text says why, in a few words."""


def decode(data: bytes) -> Image.Image:
    """Return the first frame: upright, RGB, 8 bits, transparency flattened on white.

    Raises `BadImage` for everything else, MemoryError if memory is short; never warns.
    """
    if not data:
        raise BadImage("empty file")
    kind = "image"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                kind = str(image.format)
                _check_size(image)
                scans = data.count(b"\xff\xda") if kind == "JPEG" else 0
                if scans * image.width * image.height > MOST_SCANS * MAX_PIXELS:
                    raise BadImage(f"JPEG of {scans} scans, too many for its size")
                _check_pixels(image)
                image.load()
                turn(image)
                return _rgb(image)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise BadImage(f"over {MAX_PIXELS // 10**6} million pixels") from error
        except UnidentifiedImageError as error:
            hints = [f": {hint}" for form, hint in HINTS.items() if re.match(form, data, re.DOTALL)]
            raise BadImage("".join(["not an image that Pillow can read", *hints])) from error
        except (BadImage, MemoryError):
            raise
        # Pillow's decoders raise exceptions of any kind: OSError, SyntaxError, struct.error, …
        except Exception as error:
            raise BadImage(f"damaged {kind}: {first_line(error)}") from error


def turn(image: Image.Image) -> None:
    """Turn an image as its EXIF orientation says; unreadable EXIF data are ignored."""
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def pixel_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of size and pixels of an RGB image: the same for every file format."""
    digest = hashlib.sha256(repr(image.size).encode())
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.digest()


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return the central square of an RGB image, resized: uint8 [3, size, size].

    It is cut out first, so that pixels outside do not blend into its border.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = image.crop((left, top, left + side, top + side))
    resized = cut.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Resize packed images uint8 [n, 3, S, S] as `square` does: uint8 [n, 3, size, size]."""
    return np.stack([square(Image.fromarray(i), size) for i in images.transpose(0, 2, 3, 1)])


def _check_size(image: Image.Image) -> None:
    """Reject images that no network can learn from, before their pixels are decoded."""
    width, height = image.size
    hungry = image.format in ("WEBP", "AVIF", "HEIF") or image.mode == "CMYK"
    most = MAX_PIXELS // 2 if hungry else MAX_PIXELS
    if width * height > most:
        raise BadImage(f"over {most // 10**6} million pixels")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"{width}x{height} pixels: a side is shorter than {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width}x{height} pixels: over {MAX_ASPECT} times as long as wide")


def _check_pixels(image: ImageFile.ImageFile) -> None:
    """Reject pixels whose range is unknown, and those that Pillow would show wrongly."""
    if image.mode == "F":
        raise BadImage("floating-point pixels, whose range is unknown")
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    signed = 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())  # 8 bits are opened as unsigned
    if signed or (image.mode == "I" and image.format not in SIXTEEN_BITS):
        raise BadImage("32-bit or signed pixels, whose range is unknown")
    if tags and image.mode.startswith("I;16"):
        black_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 1
        if tags.get(TiffImagePlugin.BITSPERSAMPLE) != (16,) or not black_is_zero:
            raise BadImage("grey TIFF of 12 bits, or of 16 whose white is zero")
    stored = image.tile[0].args if image.format == "PNG" and image.tile else None
    if stored in ("L;2", "L;4", "RGB;16B") and "transparency" in image.info:
        # Pillow scales the pixels to 8 bits, but not the transparent value
        raise BadImage("PNG with a transparent value of 2-bit or 4-bit grey or 16-bit colour")


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB, in strips: converting it whole takes gigabytes."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        rgb.paste(_strip(image.crop((0, top, image.width, bottom))), (0, top))
    return rgb


def _strip(image: Image.Image) -> Image.Image:
    """Convert some rows of an image to 8-bit RGB."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64)
        eight = (grey >> 8).astype(np.uint8)
        if image.has_transparency_data:  # one value is transparent
            eight[grey == image.info["transparency"]] = 255
        return Image.fromarray(eight).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
