"""Pixels of every depth and sign, in PNG, TIFF and PPM files that are spelt out here by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from featgan.images.decode import BadImage, decode

SIDE = 16
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""A PNG's colour types."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""A TIFF's photometric interpretations."""
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""A TIFF's sample formats."""


def png(depth: int, colour: int, top: bytes, bottom: bytes, *chunks: bytes) -> bytes:
    """A PNG of eight rows of `top` and eight of `bottom`; `chunks` come before the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(8 * (b"\0" + top) + 8 * (b"\0" + bottom))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, *chunks, pixels, b"IEND")
    )


def tiff(
    value: bytes, bits: int, sign: int = UNSIGNED, shown: int = BLACK_IS_ZERO, order: str = "<"
) -> bytes:
    """A plain TIFF, all of whose samples are `value`: grey, or three a pixel of RGB."""
    samples = 3 if shown == RGB else 1
    pixels = value * (SIDE * SIDE * samples * bits // (8 * len(value)))
    lists = struct.pack(f"{order}6H", *3 * [bits], *3 * [sign])
    start = 8 + 2 + 10 * 12 + 4  # of the lists, behind the header and ten entries
    entries = [
        *((256, "H", SIDE), (257, "H", SIDE), (258, "H", bits if samples == 1 else start)),
        *((259, "H", 1), (262, "H", shown), (273, "I", start + len(lists)), (277, "H", samples)),
        *((278, "H", SIDE), (279, "I", len(pixels))),
        (339, "H", sign if samples == 1 else start + 6),
    ]
    directory = b""
    for tag, kind, held in entries:
        count = samples if tag in (258, 339) else 1
        directory += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, count)
        directory += struct.pack(f"{order}{'I' if count > 1 else kind}", held).ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + bytes(4) + lists + pixels


WHITE = 255
TWO_COLOURS = b"PLTE\xff\x00\x00\x00\xff\x00"


@pytest.mark.parametrize(
    ("data", "top", "bottom"),
    [
        # 0b01 of four shades is 85 of 255, and 5 of sixteen is 85, too
        (png(2, GREY, b"\x55" * 4, b"\xaa" * 4), [85] * 3, [170] * 3),
        (png(1, GREY, b"\x00" * 2, b"\xff" * 2, b"tRNS\0\0"), [WHITE] * 3, [WHITE] * 3),
        (png(8, GREY, b"\x55" * 16, b"\xaa" * 16, b"tRNS\0\x55"), [WHITE] * 3, [170] * 3),
        (
            png(8, COLOUR, b"\5\6\7" * 16, b"\5\6\x08" * 16, b"tRNS\0\5\0\6\0\7"),
            [WHITE] * 3,
            [5, 6, 8],
        ),
        (png(16, COLOUR, b"\x12\xff" * 48, b"\x34\x00" * 48), [0x12] * 3, [0x34] * 3),
        # 51 of 255 is a fifth: black leaves four fifths of white; 128 leaves half of it, adds 64
        (
            png(16, GREY_ALPHA, b"\0\xff\x33\xff" * 16, b"\x80\xff\xff\xff" * 16),
            [204] * 3,
            [128] * 3,
        ),
        (png(16, COLOUR_ALPHA, b"\0\xff" * 64, b"\x80\xff" * 64), [WHITE] * 3, [191] * 3),
        (png(1, PALETTE, b"\0" * 2, b"\xff" * 2, TWO_COLOURS), [255, 0, 0], [0, 255, 0]),
        (
            png(4, PALETTE, b"\0" * 8, b"\x11" * 8, TWO_COLOURS, b"tRNS\x33\xff"),
            [255, 204, 204],
            [0, 255, 0],
        ),
    ],
    ids=[
        *("2-bit grey", "1-bit grey with a hole"),
        *("8-bit grey with a hole", "8-bit colour with a hole"),
        *("16-bit colour", "16-bit grey and alpha"),
        *("16-bit colour and alpha", "1-bit palette", "4-bit palette, a fifth opaque"),
    ],
)
def test_a_png_of_any_depth(data: bytes, top: list[int], bottom: list[int]) -> None:
    pixels = np.asarray(decode(data))
    assert (pixels[:8] == top).all(), pixels[0, 0]
    assert (pixels[8:] == bottom).all(), pixels[-1, 0]


@pytest.mark.parametrize(
    ("data", "grey"),
    [
        (tiff(b"\xff\x80", 16), 0x80),
        (tiff(b"\x80\xff", 16, order=">"), 0x80),
        (tiff(b"\xff\x80", 16, shown=RGB), 0x80),
        (tiff(b"\x80\xff", 16, shown=RGB, order=">"), 0x80),
        (tiff(b"\xc8", 8), 200),
        (tiff(b"\xc8", 8, shown=WHITE_IS_ZERO), 55),
        (tiff(b"\x77", 4), 7 * 17),
        (tiff(b"\x77", 4, shown=WHITE_IS_ZERO), 8 * 17),
        (b"P5 16 16 1023\n" + b"\x02\x00" * 256, 128),  # 512 of 1023
        (b"P5 16 16 100\n" + b"\x32" * 256, 128),  # 50 of 100, rounded
        (b"P6 16 16 65535\n" + b"\x00\xff" * 768, 1),  # 255 of 65535, rounded
        (b"P2 16 16 15\n" + b"5 " * 256, 85),
    ],
    ids=[
        *("16-bit tiff", "big-endian", "16-bit colour", "big-endian colour", "8-bit tiff"),
        *("8-bit white is zero", "4-bit tiff", "4-bit white is zero", "pgm of 1023"),
        *("pgm of 100", "16-bit ppm", "pgm in letters"),
    ],
)
def test_a_tiff_and_a_ppm_of_any_depth(data: bytes, grey: int) -> None:
    assert (np.asarray(decode(data)) == grey).all()


RANGE = "32-bit or signed pixels, whose range is unknown"
FLOATING = "floating-point pixels, whose range is unknown"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(struct.pack("<b", -5), 8, SIGNED), RANGE),  # Pillow opens it as 251 of 255
        (tiff(struct.pack("<h", -5), 16, SIGNED), RANGE),
        (tiff(struct.pack(">h", 300), 16, SIGNED, order=">"), RANGE),
        (tiff(struct.pack("<i", -5), 32, SIGNED), RANGE),
        (tiff(struct.pack("<I", 2**31), 32), RANGE),
        (tiff(struct.pack("<f", 0.5), 32, FLOAT), FLOATING),
        (b"Pf\n16 16\n-1.0\n" + 256 * struct.pack("<f", 0.5), FLOATING),
        (tiff(b"\xff", 12), "grey TIFF of 12 bits"),
        (tiff(b"\0", 16, shown=WHITE_IS_ZERO), "grey TIFF .* of 16 whose white is zero"),
        (png(2, GREY, b"\x55" * 4, b"\xaa" * 4, b"tRNS\0\1"), "PNG with a transparent value"),
        (png(4, GREY, b"\x55" * 8, b"\xaa" * 8, b"tRNS\0\5"), "PNG with a transparent value"),
        (
            png(16, COLOUR, b"\x12\x34" * 48, b"\x34\x34" * 48, b"tRNS" + b"\x12\x34" * 3),
            "PNG with a transparent value",
        ),
        # unknown to Pillow
        (tiff(struct.pack("<h", -5), 16, SIGNED, shown=RGB), "not an image"),
        (tiff(struct.pack("<f", 0.5), 32, FLOAT, shown=RGB), "not an image"),
        (tiff(struct.pack("<d", 0.5), 64, FLOAT), "not an image"),
    ],
    ids=[
        *("int8", "int16", "big-endian int16", "int32", "uint32", "float32", "pfm"),
        *("12-bit", "16-bit white is zero", "2-bit hole", "4-bit hole", "16-bit colour hole"),
        *("int16 colour", "float32 colour", "float64"),
    ],
)
def test_pixels_whose_range_is_unknown_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)
