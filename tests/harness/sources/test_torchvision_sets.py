"""torchvision's data sets as sources."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import Base
from sourced import pixel, save, source, write_idx

from featgan.errors import UserError
from featgan.images.decode import BadImage, decode
from harness.sources import torchvision_sets
from harness.sources.base import Source
from harness.sources.listing import Listing


def test_torchvision_set_on_disk(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, size in (("train", 4), ("t10k", 2)):
        write_idx(raw / f"{name}-images-idx3-ubyte", np.full((size, 28, 28), 9))
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.arange(size))
    found = source("torchvision", set="MNIST", path=str(tmp_path), options={"train": False})

    assert Listing.of(found.find(32)).images["label"].tolist() == ["0 - zero", "1 - one"]
    assert pixel(found, 1) == (9, 9, 9)


def image_folder(folder: Path) -> Source:
    return source("torchvision", set="ImageFolder", path=str(folder))


def test_a_torchvision_set_that_changed_is_noticed(tmp_path: Path) -> None:
    save(tmp_path / "cats/1.png", "red")
    save(tmp_path / "dogs/1.png", "red")
    before = Listing.of(image_folder(tmp_path).find(32)).digest()
    same = Listing.of(image_folder(tmp_path).find(32)).digest()
    save(tmp_path / "dogs/1.png", "lime")
    os.utime(tmp_path / "dogs/1.png", (1, 1))

    assert before == same
    assert Listing.of(image_folder(tmp_path).find(32)).digest() != before


def test_a_torchvision_sets_files_are_read_as_a_folders(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "all/1.png")
    Image.fromarray(np.full((16, 16), 1000, np.uint16)).save(tmp_path / "all/2.png")
    found = image_folder(tmp_path)

    assert [pixel(found, row) for row in range(2)] == [(255, 255, 255), (3, 3, 3)]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("RGBA", (16, 16), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.fromarray(np.full((16, 16), 1000, np.uint16)), (3, 3, 3)),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), (255, 0, 0)),
    ],
    ids=["transparent", "16 bits", "CMYK"],
)
def test_an_image_decoded_by_a_set_keeps_alpha_and_bits(
    image: Image.Image, colour: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_sets, "_open", lambda _: [(image, 0)])

    assert decode(torchvision_sets.read(b"0 some")).getpixel((8, 8)) == colour


def test_what_a_set_decodes_itself_is_turned_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    lying = Image.new("RGB", (20, 10), "red")
    lying.paste("blue", (0, 0, 10, 10))
    exif, file = Image.Exif(), io.BytesIO()
    exif[Base.Orientation] = 6  # a quarter turn to the right
    lying.save(file, "PNG", exif=exif)
    monkeypatch.setattr(torchvision_sets, "_open", lambda _: [(Image.open(file).convert("RGB"), 0)])
    upright = decode(torchvision_sets.read(b"0 some"))

    assert upright.size == (10, 20)
    assert [upright.getpixel((5, y)) for y in (5, 15)] == [(0, 0, 255), (255, 0, 0)]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_what_a_set_decodes_to_an_unknown_range_is_refused(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_sets, "_open", lambda _: [(Image.new(mode, (16, 16), 255), 0)])

    with pytest.raises(BadImage, match="whose range is unknown"):
        decode(torchvision_sets.read(b"0 some"))


def bomb() -> bytes:
    """A PNG that claims 400 million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + b"\0" * 4


def test_bad_images_of_a_set_are_not_unreadable_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/1.png").write_bytes(bomb())
    save(tmp_path / "all/2.png")
    save(tmp_path / "all/3.png")
    found = image_folder(tmp_path)
    read, places = found.reader(), Listing.of(found.find(32)).images["location"]
    (tmp_path / "all/3.png").unlink()

    with pytest.raises(BadImage):
        read(places[0])
    assert pixel(found, 1) == (255, 0, 0)
    with pytest.raises(FileNotFoundError):
        read(places[2])


def test_a_set_that_begins_with_bad_images_is_looked_through(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(25):
        (tmp_path / f"a/{number}.png").write_text("<html>not found</html>")
    save(tmp_path / "b/1.png", "red")
    found = image_folder(tmp_path)

    assert len(Listing.of(found.find(32)).images) == 26
    assert pixel(found, 25) == (255, 0, 0)


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __getitem__(self, _: int) -> None:
            raise MemoryError

    monkeypatch.setattr(torchvision_sets, "_open", lambda _: Full())
    with pytest.raises(MemoryError):
        torchvision_sets.read(b"0 some")


def test_labels_are_found_without_opening_the_images() -> None:
    class Unopened:
        def __init__(self, **known: object) -> None:
            self.__dict__ |= known

        def __getitem__(self, _: int) -> None:
            pytest.fail("an image was opened")

    for known in (
        {"targets": [2, 0]},
        {"_labels": (2, 0)},
        {"y": [2, 0], "index": [1, 1]},  # Caltech101
        {"_samples": [("a.jpg", 2), ("b.jpg", 0)]},  # Imagenette, GTSRB, StanfordCars, FER2013
        {"targets": torch.tensor([[2, 7, 7], [0, 7, 7]])},  # QMNIST
    ):
        assert torchvision_sets._labels(Unopened(**known)) == [2, 0]
    pets = Unopened(_target_types=["binary-category"], _labels=[36, 1], _bin_labels=[2, 0])
    assert torchvision_sets._labels(pets) == [2, 0]
    inaturalist = type("INaturalist", (Unopened,), {"target_type": ["full"]})
    assert torchvision_sets._labels(inaturalist(index=[(2, "a.jpg"), (0, "b.jpg")])) == [2, 0]


def test_an_unreadable_image_with_an_unknown_label_is_named() -> None:
    class Opened:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[None, int]:
            if index == 1:
                raise BadImage("damaged PNG")
            return None, 0

    with pytest.raises(UserError, match=r"Opened: image 1 must be opened .* damaged PNG; fix"):
        torchvision_sets._labels(Opened())


def test_a_pipe_in_a_set_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    os.mkfifo(tmp_path / "cats/1.png")
    save(tmp_path / "cats/2.png", "red")
    found = image_folder(tmp_path)
    assert pixel(found, 1) == (255, 0, 0)
    with pytest.raises(OSError, match="not a regular file"):
        pixel(found, 0)


def test_torchvision_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    for name, says in (
        ("CIFAR11", "did you mean CIFAR10"),
        ("CIFAR10", "torchvision's CIFAR10 in .*not found"),
        ("VOCDetection", "VOCDetection"),
    ):
        with pytest.raises(UserError, match=says):
            Listing.of(source("torchvision", set=name, path=str(tmp_path)).find(32))
