"""Image files of every kind that is read, whole and damaged."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photographs() -> list[Image.Image]:
    """Return scikit-learn's two real photographs, made small."""
    return [Image.fromarray(photo).resize((96, 64)) for photo in load_sample_images().images]


def frames(photo: Image.Image) -> dict[str, object]:
    """Return further frames: fresh pictures, as Pillow keeps a format's options with them."""
    return {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}


def originals() -> dict[str, list[bytes]]:
    """Return real files of every format and kind that is read."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    found: dict[str, list[bytes]] = {}
    for photo in photographs():
        grey, palette, clear = photo.convert("L"), photo.quantize(64), photo.convert("RGBA")
        clear.putalpha(grey)
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        files = {
            "jpeg": encode(photo, "JPEG", exif=exif),
            "jpeg progressive": encode(photo, "JPEG", progressive=True, optimize=True),
            "jpeg cmyk": encode(photo.convert("CMYK"), "JPEG"),
            "jpeg grey": encode(grey, "JPEG", quality=95, dpi=(72, 72)),
            "mpo": encode(photo, "MPO", **frames(photo)),
            "png": encode(photo, "PNG", exif=exif),
            "png palette": encode(palette, "PNG", transparency=3),
            "png alpha": encode(clear, "PNG"),
            "png 16 bits": encode(deep, "PNG"),
            "apng": encode(photo, "PNG", **frames(photo)),
            "webp": encode(photo, "WEBP", exif=exif),
            "webp lossless": encode(clear, "WEBP", lossless=True),
            "webp animated": encode(photo, "WEBP", **frames(photo)),
            "avif": encode(photo, "AVIF", exif=exif),
            "avif alpha": encode(clear, "AVIF"),
            "bmp": encode(photo, "BMP"),
            "bmp palette": encode(palette, "BMP"),
            "gif": encode(palette, "GIF", transparency=2),
            "gif animated": encode(photo, "GIF", **frames(photo)),
            "tiff": encode(photo, "TIFF"),
            "tiff lzw": encode(photo, "TIFF", compression="tiff_lzw"),
            "tiff jpeg": encode(photo, "TIFF", compression="jpeg"),
            "tiff deflate 16 bits": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
            "tiff pages": encode(photo, "TIFF", **frames(photo)),
            "ppm": encode(photo, "PPM"),
            "pgm": encode(grey, "PPM"),
            "pbm": encode(photo.convert("1"), "PPM"),
        }
        for kind, data in files.items():
            found.setdefault(kind, []).append(data)
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return it truncated, or with bits flipped (every other time near its beginning), or both."""
    content = bytearray(data)
    if chance.random() < 0.4:
        del content[chance.randrange(len(content)) :]
    if content and chance.random() < 0.75:
        reach = len(content) if chance.random() < 0.5 else min(len(content), 200)
        for _ in range(chance.choice([1, 1, 2, 4, 16])):
            content[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    if chance.random() < 0.1:
        at = chance.randrange(len(content) + 1)
        content[at:at] = chance.randbytes(chance.choice([1, 4, 64]))
    return bytes(content)


def cases(count: int) -> list[tuple[str, bytes]]:
    """Return damaged files with the kind of each; the same at every call."""
    files, chance = originals(), random.Random(0)
    kinds = sorted(files)
    return [
        (kind, damaged(chance.choice(files[kind]), chance))
        for kind in (kinds[number % len(kinds)] for number in range(count))
    ]
