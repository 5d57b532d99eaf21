from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from image_files import encode
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from featgan.images import decode as images
from featgan.images.decode import BadImage, decode, pixel_digest, square


def plain(colour: object, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be this large and holds no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP that claims to be this large."""
    data = bytearray(encode(plain("red"), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    sizes = int.from_bytes(data[at : at + 4], "little") >> 28 << 28
    data[at : at + 4] = (sizes | (height - 1) << 14 | width - 1).to_bytes(4, "little")
    return bytes(data)


def cmyk_header(width: int, height: int) -> bytes:
    """A CMYK JPEG that claims to be this large."""
    data = bytearray(encode(plain("red", "CMYK"), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.guarantee(
    "Images",
    "Decompression bombs and JPEGs of too many scans or segments are not decoded",
)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (encode(PHOTO, "JPEG")[:1500], "damaged JPEG"),
        (encode(PHOTO, "PNG")[:5000], "damaged PNG"),
        (png_header(20_000, 20_000), "over 89 million pixels"),
        (png_header(10_000, 10_000), "over 89 million pixels"),
        (webp_header(6700, 6700), "over 44 million pixels"),
        (cmyk_header(6700, 6700), "over 44 million pixels"),
        (encode(plain("red", size=(1, 1)), "PNG"), "1x1 pixels"),
        (encode(plain("red", size=(8, 7)), "PNG"), "8x7 pixels: a side is shorter than 8"),
        (encode(plain("red", size=(1, 40_000)), "PNG"), "1x40000 pixels"),
        (encode(plain("red", size=(10, 101)), "PNG"), "10 times as long"),
        (encode(plain(0.5, "F"), "TIFF"), "floating-point"),
        (encode(plain(1 << 20, "I"), "TIFF"), "32-bit"),
        (encode(plain(255, "I"), "TIFF"), "32-bit"),  # not black, as the upper bits of 16 would be
        (encode(PHOTO, "WEBP")[:1500], "damaged image|not an image"),
        (encode(PHOTO, "JPEG")[:100], "damaged image|not an image"),
        (encode(PHOTO, "BMP")[:1500], "damaged BMP"),
        (encode(PHOTO, "GIF")[:1500], "damaged GIF"),
        (encode(PHOTO, "TIFF")[:1500], "damaged TIFF"),
        (encode(PHOTO, "PPM")[:1500], "damaged PPM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_images_are_named_with_their_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)


def two_colours() -> Image.Image:
    """A palette's first entry, red, at the left and its second, blue, at the right."""
    image = plain(0, "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (10, 0, 20, 16))
    return image


@pytest.mark.parametrize("size", [(8, 8), (80, 8), (8, 80)])
def test_the_smallest_and_the_longest_images(size: tuple[int, int]) -> None:
    assert decode(encode(plain("red", size=size), "PNG")).size == size


def animation(kind: str, **options: object) -> bytes:
    """Two frames, or pages: lime, then blue."""
    further = {"save_all": True, "append_images": [plain("blue")]}
    return encode(plain("lime"), kind, **further, **options)


def sixteen_bits() -> bytes:
    return encode(Image.fromarray(np.full((16, 20), 0x80FF, np.uint16)), "PNG")


def sixteen_bits_pgm() -> bytes:
    return b"P5 20 16 65535\n" + b"\x80\xff" * 320


RED, LIME, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (encode(plain((0, 255, 255, 0), "CMYK"), "JPEG"), (254, 0, 0), (254, 0, 0)),
        (sixteen_bits(), (128, 128, 128), (128, 128, 128)),
        (sixteen_bits_pgm(), (128, 128, 128), (128, 128, 128)),
        (encode(plain(200, "L"), "PNG"), (200, 200, 200), (200, 200, 200)),
        (encode(plain(1, "1"), "PNG"), WHITE, WHITE),
        (encode(two_colours(), "PNG", transparency=1), RED, WHITE),
        (encode(plain((0, 0, 0, 0), "RGBA"), "PNG"), WHITE, WHITE),
        (encode(plain((0, 51), "LA"), "PNG"), (204, 204, 204), (204, 204, 204)),
        (encode(two_colours(), "PNG"), RED, (0, 0, 255)),
        (encode(two_colours(), "GIF", transparency=1), RED, WHITE),
        (encode(plain((0, 0, 0, 0), "RGBA"), "WEBP", lossless=True), WHITE, WHITE),
        (animation("GIF"), LIME, LIME),
        (animation("WEBP", lossless=True), LIME, LIME),
        (animation("PNG"), LIME, LIME),
        (animation("PNG", default_image=True), LIME, LIME),  # for viewers that know no animation
        (animation("TIFF"), LIME, LIME),
        (encode(plain("red"), "WEBP", lossless=True), RED, RED),
        (encode(plain("red"), "AVIF", quality=100, subsampling="4:4:4"), RED, RED),
        (encode(plain((0, 0, 0, 0), "RGBA"), "AVIF", quality=100), WHITE, WHITE),
        (encode(plain("red"), "BMP"), RED, RED),
        (encode(plain("red"), "TIFF"), RED, RED),
        (encode(plain("red"), "PPM"), RED, RED),
    ],
    ids=[
        *("cmyk", "16-bit", "16-bit pgm", "grey", "bilevel", "palette with a hole", "rgba", "la"),
        *("palette", "gif with a hole", "transparent webp", "animated gif", "animated webp"),
        *("animated png", "animated png with a default image", "tiff of two pages"),
        *("webp", "avif", "transparent avif", "bmp", "tiff", "ppm"),
    ],
)
def test_odd_images_become_rgb(
    data: bytes, left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    image = decode(data)

    assert (image.mode, image.size) == ("RGB", (20, 16))
    difference = np.abs(
        np.subtract([image.getpixel((2, 8)), image.getpixel((17, 8))], [left, right])
    )
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            ": a Git LFS pointer, run",
        ),
        (b"\n<!doctype HTML><title>Not found</title>", ": a web page"),
        (b"<html lang=en>", ": a web page"),
        (b"<svg/>", "$"),
    ],
)
def test_what_a_download_leaves_for_an_image_is_named(data: bytes, hint: str) -> None:
    with pytest.raises(BadImage, match=f"not an image that Pillow can read{hint}"):
        decode(data)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.mark.skipif("HEIF" in images.FORMATS, reason="pillow-heif is installed")
def test_heic_names_the_package_that_reads_it() -> None:
    with pytest.raises(BadImage, match="not an image that Pillow can read: HEIC needs `pip inst"):
        decode(HEIC)


@pytest.mark.skipif("HEIF" not in images.FORMATS, reason="pillow-heif is missing")
def test_heic_is_read_with_its_package() -> None:
    red = decode(encode(plain("red"), "HEIF", quality=100)).getpixel((2, 8))
    assert np.abs(np.subtract(red, RED)).max() <= 1


def test_a_cut_and_closed_jpeg_is_what_libjpeg_shows() -> None:
    """The upper half as it was; mid-grey where nothing is left."""
    data = encode(PHOTO.convert("L"), "JPEG")
    whole, found = decode(data), np.asarray(decode(data[: len(data) * 6 // 10] + b"\xff\xd9"))
    assert np.array_equal(found[:32], np.asarray(whole)[:32])
    assert (found[-8:] == 128).all()


def test_a_jpeg_with_damaged_pixels_is_what_libjpeg_shows() -> None:
    data = bytearray(encode(PHOTO.convert("L"), "JPEG"))
    whole = np.asarray(decode(bytes(data)))
    data[len(data) * 6 // 10] ^= 16
    found = np.asarray(decode(bytes(data)))
    assert np.array_equal(found[:32], whole[:32])
    assert (found[-8:] != whole[-8:]).mean() > 0.5


@pytest.mark.parametrize(("kind", "end"), [("PNG", 20), ("GIF", 1)])
def test_a_file_cut_after_its_last_pixel_is_the_whole_picture(kind: str, end: int) -> None:
    data = encode(PHOTO, kind)
    assert decode(data[:-end]).tobytes() == decode(data).tobytes()


def test_a_png_with_a_large_profile_or_history_is_good() -> None:
    history = PngInfo()
    history.add_text("history", "edited, " * 400_000, zip=True)
    for data in (
        encode(plain("lime"), "PNG", icc_profile=bytes(3 * 2**20)),
        encode(plain("lime"), "PNG", pnginfo=history),
    ):
        assert decode(data).getpixel((2, 8)) == LIME


def test_exif_rotation_is_applied() -> None:
    image = plain("white")
    image.paste((255, 0, 0), (0, 0, 10, 16))  # red at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to the top
    turned = decode(encode(image, "PNG", exif=exif))

    assert turned.size == (16, 20)
    assert turned.getpixel((8, 2)) == RED
    assert turned.getpixel((8, 17)) == WHITE


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO.crop((0, 0, 64, 40)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(decode(data), expected)


def test_a_transparent_value_of_16_bits_is_white() -> None:
    pixels = np.full((16, 16), 1000, np.uint16)
    pixels[:8] = 40_000
    found = np.asarray(decode(encode(Image.fromarray(pixels), "PNG", transparency=1000)))
    assert (found[:8] == 40_000 >> 8).all()
    assert (found[8:] == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16"])
def test_an_image_of_several_strips_is_that_of_one(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 40, 4), np.uint8)
    image = Image.fromarray(noise).convert("RGBA" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    data = encode(image, "PNG")
    found = decode(data)
    monkeypatch.setattr(images, "STRIP", 10_000)
    assert np.array_equal(found, decode(data))
    assert len(np.unique(np.asarray(found)[250:])) > 50


def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encode(plain("red"), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")

    assert decode(data).size == (20, 16)


def test_pixels_outside_of_the_square_do_not_enter_it() -> None:
    image = Image.new("RGB", (60, 40), "red")
    image.paste("lime", (10, 0, 50, 40))

    assert (square(image, 16) == np.array(LIME)[:, None, None]).all()


def test_square_takes_the_middle() -> None:
    image = plain("blue", size=(30, 10))
    image.paste((255, 0, 0), (10, 0, 20, 10))

    pixels = square(image, 10)

    assert pixels.shape == (3, 10, 10)
    assert (pixels == np.array([255, 0, 0])[:, None, None]).all()


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255

    assert abs(int(square(Image.fromarray(stripes), 8)[0, 4, 4]) - 127) <= 3


def test_the_digest_is_of_size_and_pixels_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 40, 3), np.uint8)  # several strips
    image, wide = Image.fromarray(pixels), Image.fromarray(pixels.reshape(150, 80, 3))
    expected = hashlib.sha256(b"(40, 300)" + pixels.tobytes()).digest()
    files = [io.BytesIO() for _ in range(3)]
    for file, form in zip(files, ("PNG", "BMP", "PPM"), strict=True):
        image.save(file, form)
    assert {pixel_digest(decode(file.getvalue())) for file in files} == {expected}
    assert pixel_digest(wide) != expected
