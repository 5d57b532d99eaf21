"""Thousands of damaged image files of every kind that is read: counted or rejected, no more."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from image_files import cases, encode, originals, photographs
from PIL import Image

from featgan.images import decode as images
from featgan.images.decode import BadImage, decode

CASES = 2400
GIBIBYTE = 2**30
MEMORY = 2 * GIBIBYTE
"""Address space of the process that decodes: what its libraries take, and one large image."""
SECONDS = 10.0
"""For one image on a busy machine; most take a millisecond."""


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
status = open("/proc/self/status").read()  # getrusage's is at least that of the process before exec
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
    """Decode them in another process, which must live to the end and may not grow."""
    stream = b"".join(len(data).to_bytes(4, "little") + data for _, data in cases(CASES))
    done = subprocess.run(
        [sys.executable, "-c", DECODE], input=stream, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = json.loads(done.stdout)
    assert found["good"] + sum(found["bad"].values()) == CASES
    assert found["good"] > CASES / 10  # much damage shows only in pixels, or in unread frames
    assert sum(found["bad"].values()) > CASES / 3
    assert found["slowest"] < SECONDS
    assert found["peak"] * 1024 < GIBIBYTE


@pytest.mark.guarantee("Images", "Only documented formats are opened, by content")
def test_other_formats_of_pillow_are_never_opened() -> None:
    """Some run programs: an EPS file is a PostScript program, and Pillow hands it to gs."""
    eps = encode(photographs()[0], "EPS")
    for data in (eps, encode(photographs()[0], "TGA"), encode(photographs()[0], "ICO")):
        with pytest.raises(BadImage, match="not an image that Pillow can read"):
            decode(data)


@pytest.mark.guarantee(
    "Images",
    "Decompression bombs and JPEGs of too many scans or segments are not decoded",
)
def test_a_jpeg_of_too_many_scans_is_never_decoded() -> None:
    data = encode(photographs()[0].resize((4000, 3000)), "JPEG", progressive=True)
    assert 1 < data.count(b"\xff\xda") < 20
    assert decode(data).size == (4000, 3000)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match=r"JPEG of 10.. scans, too many for its size"):
        decode(data[:last] + 1000 * data[last:-2] + data[-2:])


def test_what_is_appended_to_a_jpeg_counts_for_no_scans() -> None:
    """Phones append a film to a photograph."""
    data = encode(photographs()[0], "JPEG", progressive=True)
    decoded = np.asarray(decode(data))
    assert np.array_equal(decode(data + 9 * 1000 * b"film\xff\xda"), decoded)
    thumbnail = encode(photographs()[0].resize((8, 8)), "JPEG")
    exif = b"Exif\x00\x00" + 300 * b"\xff\xda" + thumbnail
    assert np.array_equal(
        decode(encode(photographs()[0], "JPEG", exif=exif, progressive=True)), decoded
    )


LARGEST = 9400
"""Side in pixels of a square just below the limit; of WebP and CMYK a square has 6600."""


def largest(kind: str) -> bytes:
    """A file of few bytes and as many pixels as are allowed."""
    image = Image.new("RGB", (LARGEST, LARGEST), (200, 10, 10))
    if kind == "png alpha":
        return encode(image.convert("RGBA"), "PNG", compress_level=1)
    if kind == "png 16 bits":
        grey = Image.fromarray(np.full((LARGEST, LARGEST), 4000, np.uint16))
        return encode(grey, "PNG", compress_level=1)
    if kind == "webp":
        return encode(image.crop((0, 0, 6600, 6600)), "WEBP", method=0)
    if kind == "jpeg cmyk progressive":
        image = image.crop((0, 0, 6600, 6600)).convert("CMYK")
    return encode(image, "JPEG", progressive=True, subsampling=0)


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
    found = json.loads(done.stdout)
    assert (found["good"], found["bad"]) == (1, {})
    assert found["peak"] * 1024 < GIBIBYTE


def test_too_little_memory_is_not_a_damaged_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(images, "_rgb", full)
    with pytest.raises(MemoryError):  # there may be room another time
        decode(encode(photographs()[0], "PNG"))
