"""torchvision's data sets as sources."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sourced import ids, pixel, save, source, write_idx

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
    read, places = found.read, Listing.of(found.find(32)).images["location"]
    (tmp_path / "all/3.png").unlink()

    with pytest.raises(BadImage):
        decode(read(places[0]))
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


def test_labels_of_other_sets_are_those_of_their_images() -> None:
    assert torchvision_sets._labels([("some image", 2), ("another", 0)]) == [2, 0]


def flowers(folder: Path) -> Source:
    """Two images of Flowers102, whose files torchvision names."""
    for number, colour in enumerate(("red", "lime"), 1):
        save(folder / f"flowers-102/jpg/image_{number:05d}.jpg", colour)
    savemat(folder / "flowers-102/imagelabels.mat", {"labels": [77, 3]})
    savemat(folder / "flowers-102/setid.mat", {"trnid": [1, 2]})
    return source("torchvision", set="Flowers102", path=str(folder))


def test_an_image_of_a_set_is_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.Flowers102._check_integrity", lambda _: True)
    found = flowers(tmp_path)
    (tmp_path / "flowers-102/jpg/image_00002.jpg").unlink()
    listing = Listing.of(found.find(32))

    assert listing.images["image_id"].tolist() == ["flowers-102/jpg/image_00001.jpg"]
    assert listing.images["label"].tolist() == ["passion flower"]
    assert listing.problems == {"flowers-102/jpg/image_00002.jpg": "file vanished"}
    assert pixel(found, 0) == (255, 0, 0)


def test_a_pipe_in_a_set_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    os.mkfifo(tmp_path / "cats/1.png")
    save(tmp_path / "cats/2.png", "red")
    found = image_folder(tmp_path)
    assert ids(found) == ["cats/2.png"]
    assert Listing.of(found.find(32)).problems == {"cats/1.png": "neither a file nor a folder"}


def test_torchvision_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    for name, says in (
        ("CIFAR11", "did you mean 'CIFAR10'"),
        ("cifar10", "did you mean 'CIFAR10'"),
        ("fashion_mnist", "did you mean 'FashionMNIST'"),
        ("CIFAR10", "torchvision's CIFAR10 in .*not found.*download: true"),
        ("VOCDetection", "VOCDetection"),
    ):
        with pytest.raises(UserError, match=says):
            Listing.of(source("torchvision", set=name, path=str(tmp_path)).find(32))
    pets = source("torchvision", set="OxfordIIITPet", path=str(tmp_path))
    chosen = pets.model_copy(update={"options": {"target_types": "binary-category"}})
    with pytest.raises(UserError, match=r"OxfordIIITPet .*: .* remove target_type"):
        Listing.of(chosen.find(32))


INDEX = {"n02012849": ("crane",), "n03126707": ("crane", "hoist")}
LABELS = ["n02012849 crane", "n03126707 crane"]


def synsets(folder: Path) -> None:
    for name in INDEX:
        save(folder / f"{name}/{name}_1.JPEG")


def test_imagenets_classes_have_synsets_and_names(tmp_path: Path) -> None:
    synsets(tmp_path / "train")
    torch.save((INDEX, []), tmp_path / "meta.bin")
    found = source("torchvision", set="ImageNet", path=str(tmp_path), options={"split": "train"})
    listing = Listing.of(found.find(32))

    assert listing.images["label"].tolist() == LABELS
    assert listing.images["image_id"][0] == "train/n02012849/n02012849_1.JPEG"


@pytest.mark.parametrize("index", ["LOC_synset_mapping.txt", "meta.bin", None])
def test_synset_folders_have_names_where_a_file_has_them(tmp_path: Path, index: str | None) -> None:
    synsets(tmp_path / "ILSVRC/Data/CLS-LOC/train")
    if index == "meta.bin":
        torch.save((INDEX, []), tmp_path / "ILSVRC/Data/CLS-LOC/meta.bin")
    elif index:
        lines = [f"{name} {', '.join(names)}\n" for name, names in INDEX.items()]
        (tmp_path / index).write_text("".join(lines))
    path = str(tmp_path / "ILSVRC/Data/CLS-LOC/train")
    for found in (
        source("folder", path=path, labels="folder"),
        source("torchvision", set="ImageFolder", path=path),
    ):
        labels = Listing.of(found.find(32)).images["label"].tolist()
        assert labels == (LABELS if index else [*INDEX])
    assert Listing.of(source("folder", path=path).find(32)).images["label"].isna().all()


def test_hidden_files_of_a_set_are_no_images(tmp_path: Path) -> None:
    for name in ("forest/1.jpg", "forest/._1.jpg", "river/2.jpg", ".ipynb_checkpoints/2.jpg"):
        save(tmp_path / "eurosat/2750" / name)
    listing = Listing.of(source("torchvision", set="EuroSAT", path=str(tmp_path)).find(32))

    assert listing.images["label"].tolist() == ["forest", "river"]
    assert listing.skipped == {"hidden": 2}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("val/1.JPEG", "val/2.JPEG"), "holds images where ImageFolder has a folder of each class"),
        (("val/train/a/1.png", "val/val/a/1.png"), "holds train, val where ImageFolder has"),
    ],
)
def test_splits_and_flat_images_are_no_classes(
    tmp_path: Path, files: tuple[str, ...], says: str
) -> None:
    """ImageNet's `val` is published flat; its folder holds `train` and `val`."""
    for name in files:
        save(tmp_path / name)
    with pytest.raises(UserError, match=says):
        Listing.of(source("torchvision", set="ImageFolder", path=str(tmp_path / "val")).find(32))
