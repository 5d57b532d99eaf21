"""CelebA by its attributes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sourced import ids, pixel, save, source

from featgan.errors import UserError
from harness.sources.listing import Listing


def celeba(folder: Path, line_end: str = "\n", mark: str = "") -> Path:
    """Six images; attributes as published: a header with a trailing space, ragged blanks.

    Windows' editors put a `mark` before the first byte.
    """
    values = {
        1: (1, 1, -1),
        2: (-1, 1, 1),
        3: (1, -1, 1),
        4: (1, 1, 1),
        5: (1, 1, -1),
        6: (-1, -1, -1),
    }
    lines = ["6", "Male Smiling Young "]
    for number, row in values.items():
        save(folder / f"img_align_celeba/{number:06d}.jpg")
        lines.append(f"{number:06d}.jpg " + " ".join(f"{value:2d}" for value in row))
    text = mark + line_end.join(lines) + line_end
    (folder / "list_attr_celeba.txt").write_text(text, newline="")
    return folder


@pytest.mark.parametrize(("line_end", "mark"), [("\n", ""), ("\r\n", ""), ("\r\n", "\ufeff")])
def test_celeba_is_filtered_by_attributes(tmp_path: Path, line_end: str, mark: str) -> None:
    path = str(celeba(tmp_path, line_end, mark))
    both = source("celeba", path=path, attributes={"Male": True, "Smiling": True})
    mixed = source("celeba", path=path, attributes={"Smiling": True, "Young": False})

    assert ids(both) == ["000001.jpg", "000004.jpg", "000005.jpg"]
    assert Listing.of(both.find(32)).matched == 3
    assert ids(mixed) == ["000001.jpg", "000005.jpg"]
    assert len(ids(source("celeba", path=path))) == 6
    assert pixel(both, 0) == (255, 0, 0)


def test_celeba_limit_is_drawn_by_seed_and_says_how_many_matched(tmp_path: Path) -> None:
    path = str(celeba(tmp_path))
    draws = [source("celeba", path=path, limit=3, seed=seed) for seed in range(8)]

    assert all(Listing.of(draw.find(32)).matched == 6 and len(ids(draw)) == 3 for draw in draws)
    assert ids(draws[0]) == sorted(ids(draws[0])) == ids(source("celeba", path=path, limit=3))
    assert len({tuple(ids(draw)) for draw in draws}) > 1
    assert len(ids(source("celeba", path=path, limit=9))) == 6


def test_celeba_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no list_attr_celeba\.txt or \.csv.* it holds nothing"
    ):
        Listing.of(source("celeba", path=str(tmp_path)).find(32))
    path = str(celeba(tmp_path))
    with pytest.raises(UserError, match="no attribute Smile; did you mean 'Smiling'"):
        Listing.of(source("celeba", path=path, attributes={"Smile": True}).find(32))
    with pytest.raises(UserError, match="no attribute Wings; it has Male"):
        Listing.of(source("celeba", path=path, attributes={"Wings": True}).find(32))
    wanted = {"Male": False, "Smiling": False, "Young": True}
    with pytest.raises(UserError, match="no image in"):
        Listing.of(source("celeba", path=path, attributes=wanted).find(32))
    file = tmp_path / "list_attr_celeba.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="damaged: 5 images of 6"):
        Listing.of(source("celeba", path=path).find(32))
    for text, says in (
        ("1\nMale\n1.jpg 0\n", "damaged: a value is neither 1 nor -1"),
        ("2\nMale Young\n1.jpg 1 1\n2.jpg 1\n", "damaged: a value is neither 1 nor -1"),
        ("1\nMale\n1.jpg 1 1\n1.jpg 1 1 1\n", "damaged: Error tokenizing"),
        ("<!DOCTYPE html><title>Quota exceeded</title>", "damaged: a web page.*download it again"),
        ("<!DOCTYPE html><style>a, b {}</style>\n", "damaged: a web page.*download it again"),
        ("", "is damaged: "),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            Listing.of(source("celeba", path=path).find(32))
    file.write_bytes(b"6\nMale\xff\n")
    with pytest.raises(UserError, match=r"damaged: .utf-8. codec"):
        Listing.of(source("celeba", path=path).find(32))


def test_the_images_of_a_partial_copy_are_drawn_from_those_there(tmp_path: Path) -> None:
    found = source("celeba", path=str(celeba(tmp_path)), attributes={"Young": True}, limit=2)
    (tmp_path / "img_align_celeba/000003.jpg").unlink()
    (tmp_path / "img_align_celeba/000006.jpg").unlink()
    listing = Listing.of(found.find(32))

    assert listing.images["image_id"].tolist() == ["000002.jpg", "000004.jpg"]
    assert (listing.matched, listing.problems) == (2, {})
    assert listing.skipped == {"listed without an image": 2}


def kaggle(folder: Path) -> None:
    """The list with commas, and the images one folder deeper."""
    text = (folder / "list_attr_celeba.txt").read_text().splitlines()
    lines = [",".join(["image_id", *text[1].split()]), *(",".join(x.split()) for x in text[2:])]
    (folder / "list_attr_celeba.csv").write_text("\n".join(lines))
    (folder / "list_attr_celeba.txt").unlink()
    (folder / "img_align_celeba").rename(folder / "inner")
    (folder / "img_align_celeba").mkdir()
    (folder / "inner").rename(folder / "img_align_celeba/img_align_celeba")


def drive(folder: Path) -> None:
    (folder / "Anno").mkdir()
    (folder / "Img").mkdir()
    (folder / "list_attr_celeba.txt").rename(folder / "Anno/list_attr_celeba.txt")
    (folder / "img_align_celeba").rename(folder / "Img/img_align_celeba")
    save(folder / "Img/img_celeba/000004.jpg")  # not aligned


def torchvisions(folder: Path) -> None:
    (folder / "celeba").mkdir()
    for name in ("list_attr_celeba.txt", "img_align_celeba"):
        (folder / name).rename(folder / "celeba" / name)


def png(folder: Path) -> None:
    (folder / "img_align_celeba").rename(folder / "img_align_celeba_png")
    for file in (folder / "img_align_celeba_png").iterdir():
        file.rename(file.with_suffix(".png"))


@pytest.mark.parametrize(
    ("move", "ending"), [(kaggle, "jpg"), (drive, "jpg"), (torchvisions, "jpg"), (png, "png")]
)
def test_every_published_layout_is_read(
    tmp_path: Path, move: Callable[[Path], None], ending: str
) -> None:
    move(celeba(tmp_path))
    found = source("celeba", path=str(tmp_path), attributes={"Male": True, "Smiling": True})

    assert ids(found) == [f"00000{number}.{ending}" for number in (1, 4, 5)]
    assert pixel(found, 1) == (255, 0, 0)


def test_images_that_are_zipped_or_elsewhere_are_named(tmp_path: Path) -> None:
    celeba(tmp_path)
    (tmp_path / "img_align_celeba").rename(tmp_path / "aligned")
    found = source("celeba", path=str(tmp_path))
    with pytest.raises(UserError, match="has images in aligned; put the aligned ones into img_al"):
        Listing.of(found.find(32))
    shutil.rmtree(tmp_path / "aligned")
    (tmp_path / "img_align_celeba.zip").write_bytes(b"PK")
    with pytest.raises(
        UserError,
        match=r"no images in .*: 1 \.txt, 1 \.zip \(unpack archives, or write",
    ):
        Listing.of(found.find(32))


def test_a_resized_copy_of_an_image_is_not_taken_for_it(tmp_path: Path) -> None:
    shutil.copytree(celeba(tmp_path) / "img_align_celeba", tmp_path / "64/img_align_celeba")
    found = source("celeba", path=str(tmp_path))
    with pytest.raises(UserError, match=r"has two 00000\d.jpg, one in 64/img_align_celeba; move"):
        Listing.of(found.find(32))


def test_celebas_folder_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    celeba(tmp_path / "celeba")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = source("celeba", path="~/celeba/")
    assert pixel(found, 5) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore:Exception ignored in.*FTPFileSystem")  # fsspec's
@pytest.mark.parametrize(
    "address",
    ["s3://bad bucket/x", "ftp://127.0.0.1:9/x", "github://a:b@c/x", "reference://x"],
)
def test_an_unreachable_bucket_is_one_line(address: str) -> None:
    with pytest.raises(UserError, match=r"cannot be (read|reached)") as caught:
        Listing.of(source("celeba", path=address).find(32))
    assert "\n" not in str(caught.value)
