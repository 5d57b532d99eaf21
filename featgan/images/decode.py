"""From the bytes of an image file to the squares a network sees, and the pack that keeps them.

`decode` is the one place that says which files are good images; docs/images.md has its table.
Knows neither where the bytes came from nor how many there are.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import (
    Image,
    ImageFile,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

RESIZE = "central square, Pillow bicubic"
"""What `square` does, as protocols spell it."""
DECODING = 2
"""Of `decode`: another number where some image comes out with other pixels, and is counted anew."""

MIN_SIDE = 8
"""Shortest side of a usable image in pixels: that of scikit-learn's digits."""
MAX_ASPECT = 10
"""Longest side over shortest side: beyond it the central square shows next to nothing."""
MAX_PIXELS = 89_478_485
"""Pixels of the largest usable image, Pillow's own limit: 341 MiB as Pillow holds RGB. Half as
many of WebP and CMYK, whose decoders hold them several times."""
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, by content: Pillow knows more, some of it by starting other programs."""
SIXTEEN_BITS = ("PNG", "PPM")
"""Formats that hold no more than 16 bits, though Pillow may open them in its mode of 32."""
STRIP = 128
"""Rows of an image that are converted at a time."""
MOST_SCANS = 100
"""Of a JPEG file. Photographs have up to a dozen; each costs a pass over all pixels."""
MOST_SEGMENTS = 10_000
"""Of a JPEG file: of 64 KiB each, as long profiles are cut, they would hold 600 MiB."""

# Of a PNG, unpacked: colour profiles and editors' histories are larger than Pillow's own mebibyte.
PngImagePlugin.MAX_TEXT_CHUNK = 2**24

INDEX = "index.parquet"
DIGESTS = "digests.json"
PACK_FORMAT = 1
SHORTEST = 256
"""Images in a shard, but for the last."""
MOST_SHARDS = 512
"""Of a pack: each is a file that stays open, and a process often may have 1,024."""


class BadImage(ValueError):
    """These bytes are not a usable image; the text says why, in a few words."""


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image: upright, RGB, 8 bits, transparency flattened on white.

    Raises `BadImage` for everything else, MemoryError where there is too little; never warns.
    """
    if not data:
        raise BadImage("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if data[:2] == b"\xff\xd8":  # before Pillow reads the segments, and keeps them all
                _check_segments(data)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                _check_range(image)
                _scale_transparency(image)
                image.load()
                turn(image)
                return _rgb(image)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise BadImage(f"over {MAX_PIXELS // 10**6} million pixels") from error
        except UnidentifiedImageError as error:
            raise BadImage("not an image that Pillow can read") from error
        except (BadImage, MemoryError):
            raise
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, …
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadImage(f"damaged {_format(data)}: {reason[:200]}") from error


def turn(image: Image.Image) -> None:
    """Turn it as its EXIF orientation says; unreadable EXIF data say nothing."""
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The central square of an RGB image, resized with antialiasing: uint8 [3, size, size]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Packed images uint8 [n, 3, S, S] as `square` makes them: uint8 [n, 3, size, size]."""
    return np.stack([square(Image.fromarray(i), size) for i in images.transpose(0, 2, 3, 1)])


def _check_size(image: Image.Image) -> None:
    """Refuse what no network can learn from, before its pixels are decoded."""
    width, height = image.size
    hungry = image.format == "WEBP" or image.mode == "CMYK"
    most = MAX_PIXELS // 2 if hungry else MAX_PIXELS
    if width * height > most:
        raise BadImage(f"over {most // 10**6} million pixels")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"{width}x{height} pixels: a side is shorter than {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width}x{height} pixels: over {MAX_ASPECT} times as long as wide")


def _check_range(image: ImageFile.ImageFile) -> None:
    """Refuse pixels whose darkest and brightest value no one has said, or Pillow forgets."""
    if image.mode == "F":
        raise BadImage("floating-point pixels, whose range is unknown")
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    signed = _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())  # of 8 bits, opened as unsigned
    if signed or (image.mode == "I" and image.format not in SIXTEEN_BITS):
        raise BadImage("32-bit or signed pixels, whose range is unknown")
    if tags and image.mode.startswith("I;16"):
        if tags.get(TiffImagePlugin.BITSPERSAMPLE) != (16,):
            raise BadImage("12-bit pixels, which Pillow would show all but black")
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
            raise BadImage(
                "16-bit pixels whose white is zero, which Pillow would show as a negative"
            )


_SIGNED, _WHITE_IS_ZERO = 2, 0


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """Of a PNG, Pillow scales the pixels to 8 bits, but not the value that is transparent."""
    value = image.info.get("transparency")
    if image.format != "PNG" or value is None or not image.tile:
        return
    spelt = image.tile[0].args
    if spelt in _STEPS:
        image.info["transparency"] = value * _STEPS[spelt]
    elif spelt == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in value)


_STEPS = {"L;2": 85, "L;4": 17}
"""Of grey of 2 and 4 bits, which Pillow spreads over 0..255."""


def _check_segments(data: bytes) -> None:
    """Refuse a JPEG file whose first image has too many parts; a film may follow it."""
    segments = scans = at = 0
    while (found := _MARKER.search(data, at)) and found[1] != _END:
        segments, scans = segments + 1, scans + (found[1] == _SCAN)
        if scans > MOST_SCANS:
            raise BadImage(f"JPEG of more than {MOST_SCANS} scans")
        if segments > MOST_SEGMENTS:
            raise BadImage(f"JPEG of more than {MOST_SEGMENTS:,} segments")
        length = int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + length  # a thumbnail inside has markers of its own


_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
"""Of those that a length follows, and the end; in the pixels of a scan there are none."""
_SCAN, _END = b"\xda", b"\xd9"


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as 8-bit RGB, in strips: whole, what lies between takes gigabytes."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        rgb.paste(_strip(image.crop((0, top, image.width, bottom))), (0, top))
    return rgb


def _strip(image: Image.Image) -> Image.Image:
    """Some rows of an image as 8-bit RGB."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64)
        eight = (grey >> 8).astype(np.uint8)
        if image.has_transparency_data:  # one value that stands for nothing
            eight[grey == image.info["transparency"]] = 255
        return Image.fromarray(eight).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _format(data: bytes) -> str:
    """JPEG, PNG, …, by the first bytes: what was cut short may not open."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, start in _STARTS.items() if data.startswith(start)), "image")


_STARTS: dict[str, bytes | tuple[bytes, ...]] = {
    "JPEG": b"\xff\xd8",
    "PNG": b"\x89PNG",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF": (b"II*\0", b"MM\0*"),
    "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
}


def _write_shards(folder: Path, total: int, images: Iterable[np.ndarray]) -> None:
    """Pieces of any length as shards of one length, none of which is held in memory."""
    length, row = max(SHORTEST, -(-total // MOST_SHARDS)), 0
    for piece in images:
        while len(piece):
            some, piece = np.split(piece, [length - row % length])
            with (folder / f"{row // length:05d}.npy").open("ab") as file:
                if row % length == 0:
                    header = np.lib.format.header_data_from_array_1_0(some)
                    shape = min(length, total - row), *some.shape[1:]
                    np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
                file.write(np.ascontiguousarray(some).data)
            row += len(some)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ImagePack:
    """The images of one data set, in the order of its feature table: memory-mapped uint8 shards.

    A folder of shards `00000.npy` … [n, 3, S, S], whose rows are numbered through,
    `index.parquet` with the `image_id` of each row, and `digests.json` with each file's SHA-256.
    """

    def __init__(self, folder: Path, shards: Sequence[np.ndarray]) -> None:
        self._folder, self._shards = folder, shards
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.size = int(shards[0].shape[-1])

    @classmethod
    def open(cls, folder: Path) -> ImagePack:
        """The pack in a local folder; no pixel is read before `rows` asks for it."""
        shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
        return cls(folder, shards)

    @classmethod
    def write(
        cls, folder: Path, image_ids: Sequence[str] | pd.Series, images: Iterable[np.ndarray]
    ) -> ImagePack:
        """Make a pack of all `images`: pieces uint8 [n, 3, S, S], which are taken one at a time."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_shards(folder, len(image_ids), images)
        table = pd.DataFrame({"image_id": image_ids})
        table.to_parquet(folder / INDEX, use_dictionary=False)  # no name comes twice
        digests = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
        about = {"format": PACK_FORMAT, "sha256": digests}
        (folder / DIGESTS).write_text(json.dumps(about, indent=1))
        return cls.open(folder)

    @staticmethod
    def check(folder: Path) -> None:
        """Read the whole pack; ValueError, in one line, where a file of it is not what it was."""
        about = json.loads((folder / DIGESTS).read_bytes())
        if about.get("format") != PACK_FORMAT:
            raise ValueError(f"format {about.get('format')}, and this version reads {PACK_FORMAT}")
        found = {*(path.name for path in folder.glob("*.npy")), INDEX}
        if odd := sorted(found ^ set(about["sha256"])):
            raise ValueError(f"{', '.join(odd)}: missing or foreign")
        for name, digest in about["sha256"].items():
            if _sha256(folder / name) != digest:
                raise ValueError(f"{name} is cut or altered: the SHA-256 differs")

    @property
    def image_ids(self) -> pd.Series:
        """The `image_id` of each row, read anew: training needs none."""
        return pd.read_parquet(self._folder / INDEX)["image_id"]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """These rows, in this order: uint8 [len(rows), 3, S, S]."""
        rows = np.asarray(rows, dtype=np.int64)
        images = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            images[here] = self._shards[number][rows[here] - self._starts[number]]
        return images
