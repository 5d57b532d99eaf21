"""Thousands of damaged image files of every kind that is read: counted or rejected, no more."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featgan.images import decode as images
from featgan.images.decode import BadImage, decode

CASES = 2400
GIBIBYTE = 2**30
MEMORY = 2 * GIBIBYTE
"""Address space of the process that decodes: what its libraries take, and one large image."""
SECONDS = 10.0
"""For one image on a busy machine; most take a millisecond."""


def photographs() -> list[Image.Image]:
    """scikit-learn's two real photographs, made small."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(photo).resize((96, 64)) for photo in load_sample_images().images]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def frames(photo: Image.Image) -> dict[str, object]:
    """Further frames: fresh pictures, as Pillow keeps a format's options with each it saves."""
    return {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}


def originals() -> dict[str, list[bytes]]:
    """Real files of every format and kind that is read."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    found: dict[str, list[bytes]] = {}
    for photo in photographs():
        grey, palette, clear = photo.convert("L"), photo.quantize(64), photo.convert("RGBA")
        clear.putalpha(grey)
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        files = {
            "jpeg": encoded(photo, "JPEG", exif=exif),
            "jpeg progressive": encoded(photo, "JPEG", progressive=True, optimize=True),
            "jpeg cmyk": encoded(photo.convert("CMYK"), "JPEG"),
            "jpeg grey": encoded(grey, "JPEG", quality=95, dpi=(72, 72)),
            "mpo": encoded(photo, "MPO", **frames(photo)),
            "png": encoded(photo, "PNG", exif=exif),
            "png palette": encoded(palette, "PNG", transparency=3),
            "png alpha": encoded(clear, "PNG"),
            "png 16 bits": encoded(deep, "PNG"),
            "apng": encoded(photo, "PNG", **frames(photo)),
            "webp": encoded(photo, "WEBP", exif=exif),
            "webp lossless": encoded(clear, "WEBP", lossless=True),
            "webp animated": encoded(photo, "WEBP", **frames(photo)),
            "bmp": encoded(photo, "BMP"),
            "bmp palette": encoded(palette, "BMP"),
            "gif": encoded(palette, "GIF", transparency=2),
            "gif animated": encoded(photo, "GIF", **frames(photo)),
            "tiff": encoded(photo, "TIFF"),
            "tiff lzw": encoded(photo, "TIFF", compression="tiff_lzw"),
            "tiff jpeg": encoded(photo, "TIFF", compression="jpeg"),
            "tiff deflate 16 bits": encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
            "tiff pages": encoded(photo, "TIFF", **frames(photo)),
            "ppm": encoded(photo, "PPM"),
            "pgm": encoded(grey, "PPM"),
            "pbm": encoded(photo.convert("1"), "PPM"),
        }
        for kind, data in files.items():
            found.setdefault(kind, []).append(data)
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Truncated, or with bits flipped (every other time near its beginning), or both."""
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


def cases(count: int = CASES) -> list[tuple[str, bytes]]:
    """Damaged files with the kind of each; the same at every call."""
    files, chance = originals(), random.Random(0)
    kinds = sorted(files)
    return [
        (kind, damaged(chance.choice(files[kind]), chance))
        for kind in (kinds[number % len(kinds)] for number in range(count))
    ]


DECODE = f"""
import json, resource, struct, sys, time
from featgan.images.decode import BadImage, decode, square
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
slowest, good, bad = 0.0, 0, {{}}
while head := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    started = time.perf_counter()
    try:
        assert square(decode(data), 64).shape == (3, 64, 64)
        good += 1
    except BadImage as error:
        assert str(error) and "\\n" not in str(error) and len(str(error)) < 300, error
        bad[str(error)] = bad.get(str(error), 0) + 1
    slowest = max(slowest, time.perf_counter() - started)
status = open("/proc/self/status").read()  # getrusage would tell of the process before exec
peak = int(status.split("VmHWM:")[1].split()[0])
json.dump({{"slowest": slowest, "good": good, "bad": bad, "peak": peak}}, sys.stdout)
"""


def test_every_original_is_a_good_image() -> None:
    for kind, files in originals().items():
        for data in files:
            assert sorted(decode(data).size) == [64, 96], kind


@pytest.mark.guarantee(
    "Images",
    "A damaged file is counted, or rejected with its reason, in under 1 GiB and 10 s; its "
    "process survives",
)
def test_damaged_files_take_bounded_time_and_memory() -> None:
    """In a process of its own, which must live to the end and may not grow."""
    stream = b"".join(len(data).to_bytes(4, "little") + data for _, data in cases())
    done = subprocess.run(
        [sys.executable, "-c", DECODE], input=stream, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = json.loads(done.stdout)
    assert told["good"] + sum(told["bad"].values()) == CASES
    assert told["good"] > CASES / 10  # much damage shows only in pixels, or in unread frames
    assert sum(told["bad"].values()) > CASES / 3
    assert told["slowest"] < SECONDS
    assert told["peak"] * 1024 < GIBIBYTE


@pytest.mark.guarantee("Images", "Only documented formats are opened, by content")
def test_other_formats_of_pillow_are_never_opened() -> None:
    """Some run programs: an EPS file is a PostScript program, and Pillow hands it to gs."""
    eps = encoded(photographs()[0], "EPS")
    for data in (eps, encoded(photographs()[0], "TGA"), encoded(photographs()[0], "ICO")):
        with pytest.raises(BadImage, match="not an image that Pillow can read"):
            decode(data)


@pytest.mark.guarantee(
    "Images",
    "Decompression bombs and JPEGs of too many scans or segments are not decoded",
)
def test_a_jpeg_of_too_many_scans_is_never_decoded() -> None:
    data = encoded(photographs()[0].resize((4000, 3000)), "JPEG", progressive=True)
    assert 1 < data.count(b"\xff\xda") < 20
    assert decode(data).size == (4000, 3000)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match=r"JPEG of 10.. scans, too many for its size"):
        decode(data[:last] + 1000 * data[last:-2] + data[-2:])


def test_what_is_appended_to_a_jpeg_counts_for_no_scans() -> None:
    """Phones append a film to a photograph."""
    data = encoded(photographs()[0], "JPEG", progressive=True)
    decoded = np.asarray(decode(data))
    assert np.array_equal(decode(data + 9 * 1000 * b"film\xff\xda"), decoded)
    thumbnail = encoded(photographs()[0].resize((8, 8)), "JPEG")
    exif = b"Exif\x00\x00" + 300 * b"\xff\xda" + thumbnail
    assert np.array_equal(
        decode(encoded(photographs()[0], "JPEG", exif=exif, progressive=True)), decoded
    )


LARGEST = 9400
"""Side in pixels of a square just below the limit; of WebP and CMYK a square has 6600."""


def largest(kind: str) -> bytes:
    """A file of few bytes and as many pixels as are allowed."""
    image = Image.new("RGB", (LARGEST, LARGEST), (200, 10, 10))
    if kind == "png alpha":
        return encoded(image.convert("RGBA"), "PNG", compress_level=1)
    if kind == "png 16 bits":
        grey = Image.fromarray(np.full((LARGEST, LARGEST), 4000, np.uint16))
        return encoded(grey, "PNG", compress_level=1)
    if kind == "webp":
        return encoded(image.crop((0, 0, 6600, 6600)), "WEBP", method=0)
    if kind == "jpeg cmyk progressive":
        image = image.crop((0, 0, 6600, 6600)).convert("CMYK")
    return encoded(image, "JPEG", progressive=True, subsampling=0)


@pytest.mark.guarantee(
    "Images",
    "A damaged file is counted, or rejected with its reason, in under 1 GiB and 10 s; its "
    "process survives",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["png alpha", "png 16 bits", "webp", "jpeg progressive", "jpeg cmyk progressive"]
)
def test_the_largest_images_are_decoded_within_a_gibibyte(kind: str) -> None:
    data = largest(kind)
    stream = len(data).to_bytes(4, "little") + data
    done = subprocess.run([sys.executable, "-c", DECODE], input=stream, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = json.loads(done.stdout)
    assert (told["good"], told["bad"]) == (1, {})
    assert told["peak"] * 1024 < GIBIBYTE


def test_too_little_memory_is_not_a_damaged_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(images, "_rgb", full)
    with pytest.raises(MemoryError):  # there may be room another time
        decode(encoded(photographs()[0], "PNG"))
