"""Which files of a folder are images: those that systems leave there, and other endings."""

from __future__ import annotations

import io
import os
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from sourced import ids, pixel, save, source

from featgan.errors import UserError
from harness.sources.base import Source
from harness.sources.listing import Listing

LEFT_BY_SYSTEMS = (
    ".ipynb_checkpoints/1-checkpoint.png",
    ".Trash-1000/files/1.png",
    "red/.ipynb_checkpoints/1-checkpoint.png",
    "red/._1.png",
    "__MACOSX/red/._1.png",
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
    "lost+found/1.png",
    "$RECYCLE.BIN/S-1-5-21/$R1.png",
    "#recycle/1.png",
    "System Volume Information/1.png",
    "red/Thumbs.db",
    "red/desktop.ini",
    ".DS_Store",
)
"""Thirteen entries of folders, below which there may be more."""


def encoded(kind: str, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, kind)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.guarantee("Images", "Hidden files and folders, and those of systems, are no images")
@pytest.mark.parametrize("kind", ["folder", "labelled", "ImageFolder", "bucket", "union"])
def test_what_systems_leave_in_folders_is_no_data(tmp_path: Path, kind: str) -> None:
    image = encoded("PNG")
    write(tmp_path, dict.fromkeys(("red/1.png", "lime/1.png", *LEFT_BY_SYSTEMS), image))
    if kind == "bucket":
        system, path = fsspec.filesystem("memory"), f"memory://left-{os.getpid()}"
        system.put(f"{tmp_path}/", f"{path}/", recursive=True)
    folder = {"source": "folder", "path": str(tmp_path), "labels": "folder"}
    found: Source = {
        "folder": lambda: source("folder", path=str(tmp_path)),
        "labelled": lambda: source("folder", path=str(tmp_path), labels="folder"),
        "ImageFolder": lambda: source("torchvision", set="ImageFolder", path=str(tmp_path)),
        "bucket": lambda: source("folder", path=path, labels="folder"),
        "union": lambda: source("union", sources={"a": folder}),
    }[kind]()
    listing = Listing.of(found.find(32))

    prefix = "a/" if kind == "union" else ""
    assert listing.images["image_id"].tolist() == [f"{prefix}lime/1.png", f"{prefix}red/1.png"]
    assert listing.problems == {}
    assert listing.skipped == {"hidden": 13}
    if kind != "folder":
        assert listing.images["label"].tolist() == ["lime", "red"]


def test_a_hidden_folder_may_hold_the_images(tmp_path: Path) -> None:
    save(tmp_path / ".cache/apples/1.png")
    assert ids(source("folder", path=str(tmp_path / ".cache/apples"))) == ["1.png"]


ODD = {
    "1.jpg": encoded("JPEG"),
    "2.avif": encoded("AVIF", "lime"),
    "3.jpg_large": encoded("JPEG"),
    "4.jpg?w=600": encoded("WEBP"),  # many servers send what they like
    "5": encoded("PNG"),
    "6.jpg:orig": encoded("JPEG"),
    "image.php": encoded("GIF"),
    "Dr. No 7": encoded("BMP"),
    "8.0": encoded("TIFF"),
    "9": encoded("PPM"),
}
OTHER = {
    "icon.svg": b"<svg/>",
    "apple.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "README": b"apples",
    "notes.txt": encoded("JPEG"),  # is not opened
    "more.txt": b"",
    "labels.json": b"{}",
}
SKIPPED = {".jp2": 1, ".json": 1, ".svg": 1, ".txt": 2, "without ending": 1}


@pytest.mark.guarantee("Images", "Files whose ending says nothing are images by their content")
def test_images_of_any_ending_are_found_and_others_counted(tmp_path: Path) -> None:
    write(tmp_path, ODD | OTHER)
    (tmp_path / "folder.svg").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = source("folder", path=str(tmp_path))
    listing = Listing.of(found.find(32))

    assert set(listing.images["image_id"]) == ODD.keys()
    assert listing.problems == {}
    assert listing.skipped == SKIPPED | {"without ending": 2}
    assert pixel(found, listing.images["image_id"].tolist().index("5")) == (255, 0, 0)


def test_images_of_a_bucket_are_found_by_content(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe({f"/odd-{os.getpid()}/{name}": data for name, data in (ODD | OTHER).items()})
    listing = Listing.of(source("folder", path=f"memory://odd-{os.getpid()}").find(32))

    assert set(listing.images["image_id"]) == ODD.keys()
    assert listing.skipped == SKIPPED


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path, {"apples.zip": b"PK", "more/pears.zip": b"PK", ".hidden.png": b""})
    says = r"no images in \S*; skipped: 2 \.zip, 1 hidden \(unpack archives, or write"
    with pytest.raises(UserError, match=says):
        Listing.of(source("folder", path=str(tmp_path)).find(32))


@pytest.mark.parametrize("kind", ["folder", "celeba", "ImageFolder", "CIFAR10"])
def test_a_zip_file_in_place_of_a_folder_is_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path, {"apples.zip": b"PK"})
    settings = {"set": kind} if kind[0].isupper() else {}
    found = source("torchvision" if settings else kind, path=f"{tmp_path}/apples.zip", **settings)
    with pytest.raises(UserError, match=r"no folder \S*/apples\.zip but a file; unpack it"):
        Listing.of(found.find(32))
