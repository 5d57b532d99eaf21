from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from pydantic import ValidationError
from sourced import ids, pixel, save, source

from featgan.errors import UserError
from featgan.images.decode import decode
from harness.sources import folder as folders
from harness.sources.folder import ENDINGS, readable, why_unreadable
from harness.sources.listing import Listing

NOBODY = 65534


# folders


def test_folder_is_recursive_sorted_and_labelled_by_folder(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/x/1.JPG", "0.webp", "b/notes.txt"):
        save(tmp_path / name)
    rows = Listing.of(source("folder", path=str(tmp_path), labels="folder").find(32)).images

    assert rows["image_id"].tolist() == ["0.webp", "a/x/1.JPG", "b/2.png"]
    assert rows["label"].tolist() == [tmp_path.name, "x", "b"]
    assert Listing.of(source("folder", path=str(tmp_path)).find(32)).images["label"].isna().all()


def test_every_promised_ending_is_read() -> None:
    promised = "jpg jpeg png webp bmp gif tiff ppm pgm".split()  # noqa: SIM905

    assert {f".{ending}" for ending in promised} <= set(ENDINGS)


def test_several_folders_keep_their_images_apart(tmp_path: Path) -> None:
    save(tmp_path / "one/pics/1.png", "red")
    save(tmp_path / "two/pics/1.png", "lime")
    save(tmp_path / "three/1.png", "blue")
    other = source("folder", path=[str(tmp_path / "one/pics"), str(tmp_path / "three")])
    alike = source("folder", path=[str(tmp_path / "one/pics"), str(tmp_path / "two/pics")])

    assert ids(other) == ["pics/1.png", "three/1.png"]
    assert ids(alike) == ["pics-1/1.png", "pics-2/1.png"]
    assert pixel(alike, 1) == (0, 255, 0)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        (b"with space.png", "with space.png"),
        (b'it\'s "quoted", so.png', 'it\'s "quoted", so.png'),
        (b"two\nlines.png", "two\nlines.png"),
        ("übung.png".encode(), "übung.png"),
        (b"\xfcbung.png", "\\xfcbung.png"),
        (b"back\\slash.png", "back\\\\slash.png"),
    ],
)
def test_odd_names_are_good_images(tmp_path: Path, name: bytes, image_id: str) -> None:
    save(os.path.join(os.fsencode(tmp_path), name))
    found = source("folder", path=str(tmp_path))

    assert ids(found) == [image_id]
    assert pixel(found, 0) == (255, 0, 0)


def test_names_that_look_alike_when_escaped_stay_apart() -> None:
    assert readable(b"\xff.png") != readable(b"\\xff.png")


def test_what_is_not_a_file_is_named_with_its_reason(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    save(tmp_path / "folder.jpg/inside.png")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    listing = Listing.of(source("folder", path=str(tmp_path)).find(32))

    assert listing.images["image_id"].tolist() == ["folder.jpg/inside.png", "good.png"]
    assert listing.problems == {
        "folder.jpg": "a folder",
        "gone.jpg": "link to a file that does not exist",
        "pipe.png": "neither a file nor a folder",
    }


def test_unreadable_and_vanished_files_have_reasons(tmp_path: Path) -> None:
    denied, gone = PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")

    assert why_unreadable(denied, b"x.png") == "no permission to read it"
    assert why_unreadable(gone, b"x.png") == "file vanished"
    assert why_unreadable(OSError(5, "Input/output error"), b"x") == (
        "cannot be read: Input/output error"
    )


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that belongs to a user without rights, whose rights this process has meanwhile."""
    root = os.geteuid() == 0  # to whom every file is open
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_a_file_without_permission_is_listed_but_not_read(as_nobody: Path) -> None:
    save(as_nobody / "closed.png")
    (as_nobody / "closed.png").chmod(0)
    found = source("folder", path=str(as_nobody))
    (location,) = Listing.of(found.find(32)).images["location"]

    with pytest.raises(PermissionError) as caught:
        found.read(location)
    assert why_unreadable(caught.value, location) == "no permission to read it"


def test_a_folder_without_permission_stops_with_its_name(as_nobody: Path) -> None:
    save(as_nobody / "open/1.png")
    save(as_nobody / "closed/2.png")
    (as_nobody / "closed").chmod(0)

    with pytest.raises(UserError, match=r"closed' cannot be listed: Permission denied"):
        Listing.of(source("folder", path=str(as_nobody)).find(32))
    (as_nobody / "closed").chmod(0o700)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "data/1.png")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    assert ids(source("folder", path=str(tmp_path / "link"))) == ["1.png"]


def test_a_linked_folder_does_not_rename_what_it_leads_to(tmp_path: Path) -> None:
    save(tmp_path / "d/zebra/1.png")
    save(tmp_path / "elsewhere/2.png")
    (tmp_path / "d/alias").symlink_to(tmp_path / "d/zebra")
    (tmp_path / "d/other").symlink_to(tmp_path / "elsewhere")
    rows = Listing.of(source("folder", path=str(tmp_path / "d"), labels="folder").find(32)).images

    assert rows["image_id"].tolist() == ["other/2.png", "zebra/1.png"]
    assert rows["label"].tolist() == ["other", "zebra"]


def test_an_image_below_two_of_the_folders_comes_once(tmp_path: Path) -> None:
    save(tmp_path / "d/zebra/1.png")
    save(tmp_path / "d/2.png")
    paths = [str(tmp_path / "d"), str(tmp_path / "d/zebra")]

    assert ids(source("folder", path=paths)) == ["d/2.png", "d/zebra/1.png"]
    assert ids(source("folder", path=paths[::-1])) == ["d/2.png", "zebra/1.png"]


def test_a_link_into_another_folder_takes_no_image_from_it(tmp_path: Path) -> None:
    save(tmp_path / "one/1.png")
    save(tmp_path / "two/red/2.png")
    (tmp_path / "one/alias").symlink_to(tmp_path / "two/red")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/loop").symlink_to(tmp_path / "links")
    (tmp_path / "links/one").symlink_to(tmp_path / "one")
    paths = [str(tmp_path / name) for name in ("one", "links", "two")]
    rows = Listing.of(source("folder", path=paths, labels="folder").find(32)).images

    assert rows["image_id"].tolist() == ["one/1.png", "two/red/2.png"]
    assert rows["label"].tolist() == ["one", "red"]


@pytest.mark.parametrize("inner", ["", "text"])
def test_each_of_several_folders_has_images(tmp_path: Path, inner: str) -> None:
    save(tmp_path / "one/1.png")
    (tmp_path / "two" / inner).mkdir(parents=True)
    (tmp_path / "two/loop").symlink_to(tmp_path / "two")
    with pytest.raises(UserError, match=r"no images in \S*/two; skipped: nothing"):
        Listing.of(source("folder", path=[str(tmp_path / "one"), str(tmp_path / "two")]).find(32))


def test_a_folder_has_its_name_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "pears/1.png")
    save(tmp_path / "apples/2.png")
    monkeypatch.chdir(tmp_path / "pears")
    alone = Listing.of(source("folder", path=".", labels="folder").find(32)).images
    both = Listing.of(source("folder", path=[".", "../apples/"], labels="folder").find(32)).images

    assert alone["label"].tolist() == ["pears"]
    assert both["image_id"].tolist() == ["apples/2.png", "pears/1.png"]


def test_a_folder_of_bad_images_lists_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", folders.MOST_BYTES + 1)  # takes no room
    listing = Listing.of(source("folder", path=str(tmp_path)).find(32))

    assert listing.images.empty
    assert listing.problems == {
        "gone.png": "link to a file that does not exist",
        "huge.png": "over 1024 MiB",
    }


@pytest.mark.parametrize(("make", "says"), [(False, "no folder"), (True, "no images in")])
def test_folder_without_images(tmp_path: Path, make: bool, says: str) -> None:
    if make:
        (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=says):
        Listing.of(source("folder", path=str(tmp_path / "here")).find(32))


def test_uris_are_listed_and_read(tmp_path: Path) -> None:
    save(tmp_path / "1.png", "lime")
    bucket = fsspec.filesystem("memory")
    bucket.pipe("/pictures/a/2.png", (tmp_path / "1.png").read_bytes())
    bucket.pipe("/pictures/read.me", b"")
    found = source("folder", path="memory://pictures", labels="folder")

    assert ids(found) == ["a/2.png"]
    assert Listing.of(found.find(32)).images["label"].tolist() == ["a"]
    assert pixel(found, 0) == (0, 255, 0)


def test_the_digest_shows_every_change(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    found = source("folder", path=str(tmp_path))
    before = Listing.of(found.find(32)).digest()
    same = Listing.of(found.find(32)).digest()
    os.utime(tmp_path / "1.png", (1, 1))
    touched = Listing.of(found.find(32)).digest()
    (tmp_path / "1.png").rename(tmp_path / "2.png")
    renamed = Listing.of(found.find(32)).digest()

    assert before == same
    assert len({before, touched, renamed}) == 3


# built-in sets


def test_apples_are_a_function_of_their_seed() -> None:
    first = source("builtin", set="apples", count=12)
    other = source("builtin", set="apples", count=12, seed=1)
    read = first.read
    places = Listing.of(first.find(32)).images["location"]
    bytes_of = [read(place) for place in places]

    assert bytes_of == [read(place) for place in places]
    assert len(set(bytes_of)) == 12
    assert not set(bytes_of) & {
        read(place) for place in Listing.of(other.find(32)).images["location"]
    }
    assert decode(bytes_of[0]).size == (64, 64)
    labels = Listing.of(first.find(32)).images["label"]
    assert labels.value_counts().tolist() == [2] * 6
    # a larger set begins with the smaller one
    assert (
        Listing.of(source("builtin", set="apples", count=20).find(32))
        .images["label"][:12]
        .equals(labels)
    )


def test_an_apple_is_the_same_picture_at_any_size() -> None:
    found = source("builtin", set="apples", count=3)
    small, large = (
        np.asarray(
            decode(found.read(Listing.of(found.find(size)).images["location"].iloc[2])).resize(
                (8, 8)
            )
        )
        for size in (32, 128)
    )

    assert np.abs(small.astype(int) - large).mean() < 12


def test_digits_are_scikit_learns() -> None:
    found = source("builtin", set="digits", count=200)
    rows = Listing.of(found.find(32)).images

    assert len(set(rows["image_id"])) == 200
    assert set(rows["label"]) == set("0123456789")
    assert len(ids(source("builtin", set="digits"))) == 1797
    assert np.asarray(decode(found.read(b"0"))).max() == 239  # 15 of 16
    with pytest.raises(UserError, match="1797 digits"):
        Listing.of(source("builtin", set="digits", count=1798).find(32))


# unions


def test_union_keeps_origins(tmp_path: Path) -> None:
    save(tmp_path / "a/1.png", "red")
    (tmp_path / "a/2.png").symlink_to(tmp_path / "nowhere")
    parts = {
        "search": {"source": "folder", "path": str(tmp_path / "a")},
        "drawn": {"source": "builtin", "set": "digits", "count": 1},
    }
    found = source("union", sources=parts)
    listing = Listing.of(found.find(32))

    assert listing.images["origin"].tolist() == ["search", "drawn"]
    assert listing.images["image_id"][0] == "search/1.png"
    assert listing.problems == {"search/2.png": "link to a file that does not exist"}
    assert pixel(found, 0) == (255, 0, 0)
    assert decode(found.read(listing.images["location"][1])).size == (8, 8)


def test_union_removes_duplicates_as_a_whole_only() -> None:
    part = {"source": "builtin", "set": "digits", "remove_duplicates": True}
    with pytest.raises(ValidationError, match="next to `sources`, not in a"):
        source("union", sources={"a": part})


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "folder", "path": ""},
        {"kind": "folder", "path": []},
        {"kind": "folder", "path": ["a", ""]},
        {"kind": "celeba", "path": ""},
        {"kind": "torchvision", "set": "MNIST", "path": ""},
    ],
)
def test_an_empty_path_is_not_the_current_folder(settings: Any) -> None:
    with pytest.raises(ValidationError, match=r"at least 1 character|name a folder"):
        source(**settings)
