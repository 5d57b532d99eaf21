from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from containers import png, write_tar, write_zip
from sourced import source

from featgan.errors import UserError
from harness.sources import archive
from harness.sources.listing import Listing

IMAGES = {f"{number:02d}.png": png(number) for number in range(6)}
NAMES = [*IMAGES]


def listed(path: object, **settings: Any) -> Listing:
    return Listing.of(source("archive", path=str(path), **settings).find(32))


def contents(path: object, **settings: Any) -> dict[str, bytes]:
    """Return the image files of a source by their id."""
    images = listed(path, **settings).images
    return dict(zip(images["image_id"], map(archive.read, images["location"]), strict=True))


def labels(path: object, **settings: Any) -> dict[str, str | None]:
    images = listed(path, **settings).images
    found = images["label"].astype(object).where(images["label"].notna(), None)
    return dict(zip(images["image_id"], found, strict=True))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_file_is_read_as_it_was_packed(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "a.zip", IMAGES | {"sub/6.jpg": b"?", "notes.txt": b"-"}, method)

    assert contents(path) == IMAGES | {"sub/6.jpg": b"?"}
    assert listed(path).skipped == {".txt": 1}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_a_tar_file_is_read_as_it_was_packed(tmp_path: Path, ending: str) -> None:
    files = {"./" + name: IMAGES[name] for name in reversed(NAMES)}
    hidden = {"__MACOSX/1.png": b"", "sub/._2.png": b""}
    path = write_tar(tmp_path / f"a.{ending}", files | hidden)

    assert contents(path) == IMAGES
    assert listed(path).skipped == {"hidden": 2}
    assert listed(path).images["image_id"].tolist() == NAMES[::-1]  # read from front to back


def test_dataset_tools_labels_are_read(tmp_path: Path) -> None:
    entries = {"labels": [["a/00.png", 3], ["b/01.png", 0]]}
    files = {"b/01.png": IMAGES["01.png"], "a/00.png": IMAGES["00.png"], "c.png": b""}
    path = write_zip(tmp_path / "a.zip", files | {"dataset.json": json.dumps(entries).encode()})

    assert labels(path, labels="dataset.json") == {"a/00.png": "3", "b/01.png": "0", "c.png": None}
    write_zip(path, files | {"dataset.json": b'{"labels": null}'})
    assert {*labels(path).values()} == {None}
    with pytest.raises(UserError, match=r"a label by `labels: dataset\.json`; skipped: nothing"):
        labels(path, labels="dataset.json")


def test_webdataset_shards_have_labels_next_to_images(tmp_path: Path) -> None:
    for shard in range(2):
        files = dict[str, bytes]()
        for number in range(2):
            files |= {
                f"{number}.left.png": IMAGES["00.png"],
                f"{number}.cls": str(shard + number).encode(),
                f"{number}.json": json.dumps({"label": 5, "kind": "oak"}).encode(),
            }
        write_tar(tmp_path / f"s-{shard}.tar", files)
    path = tmp_path / "s-{0..1}.tar"

    expected = {"s-0.tar/0": "0", "s-0.tar/1": "1", "s-1.tar/0": "1", "s-1.tar/1": "2"}
    of_cls = labels(path, labels="cls")
    assert of_cls == {f"{name}.left.png": label for name, label in expected.items()}
    assert {*labels(path, labels="json").values()} == {"5"}
    assert {*labels(path, labels="json", label_key="kind").values()} == {"oak"}
    assert {*labels(path).values()} == {None}
    assert listed(path, labels="cls").skipped == {".json": 4}
    with pytest.raises(UserError, match="by `labels: json and label_key: species`; skipped"):
        labels(path, labels="json", label_key="species")


def test_a_label_apart_from_its_image_is_counted_as_skipped(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.cls": b"0", **IMAGES})
    with pytest.raises(UserError, match=r"has a label by `labels: cls`; skipped: 1 \.cls$"):
        labels(path, labels="cls")
    write_tar(path, {"1.cls": b"0", **IMAGES, "2.png": b"", "2.cls": b"1"})
    assert listed(path, labels="cls").skipped == {".cls": 1}


def test_folders_are_labels_and_else_the_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pears.zip", {"x/oak/1.png": b"", "2.png": b""})
    assert labels(path, labels="folder") == {"x/oak/1.png": "oak", "2.png": "pears"}


def test_archives_in_a_bucket_are_read_where_they_are(tmp_path: Path) -> None:
    bucket = fsspec.filesystem("memory")
    for path in (write_zip(tmp_path / "a.zip", IMAGES), write_tar(tmp_path / "b.tgz", IMAGES)):
        bucket.pipe(f"/bucket/{path.name}", path.read_bytes())
        assert contents(f"memory://bucket/{path.name}") == IMAGES
    bucket.rm("/bucket", recursive=True)


def test_what_is_no_plain_image_has_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "00.png"
        archive.addfile(link)
        good = tarfile.TarInfo("good")  # its first bytes decide
        good.size = len(IMAGES["00.png"])
        archive.addfile(good, io.BytesIO(IMAGES["00.png"]))
    packed = write_zip(tmp_path / "a.zip", {"1.png": b"x", "2.png": b"x"}, zipfile.ZIP_BZIP2)

    assert listed(path).problems == {"link.png": "a link, a device or a sparse file"}
    assert contents(path) == {"good": IMAGES["00.png"]}
    assert {*listed(packed).problems.values()} == {"packed in another way than stored or deflated"}


@pytest.mark.guarantee(
    "Images", "A damaged archive ends the listing with its name and that of the member"
)
@pytest.mark.parametrize("damage", ["cut in a member", "cut between members", "a header"])
def test_a_damaged_tar_is_named_with_its_member(tmp_path: Path, damage: str) -> None:
    path = write_tar(tmp_path / "a.tar", IMAGES)
    data = bytearray(path.read_bytes())
    offsets = [int(Path(place.decode()).name[:15]) for place in listed(path).images["location"]]
    if damage == "a header":
        data[offsets[3] - 400] ^= 1  # of 03.png
    else:
        del data[offsets[2] + (10 if damage == "cut in a member" else 1024) :]
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"data: a\.tar is damaged at or after 02\.png: "):
        listed(path)


def test_an_empty_header_or_two_archives_in_one_are_damage(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", IMAGES)
    whole = path.read_bytes()
    offset = int(Path(listed(path).images["location"][3].decode()).name[:15])
    without = bytearray(whole)
    without[offset - 512 : offset] = bytes(512)
    for content, last in ((without, "02"), (whole * 2, "05")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"is damaged at or after {last}\.png: what follows"):
            listed(path)


def test_a_changed_byte_in_a_compressed_tar_is_damage(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "a.tar", IMAGES).read_bytes()
    packed = bytearray(gzip.compress(plain, compresslevel=0))
    packed[packed.index(IMAGES["03.png"]) + 60] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"a\.tar\.gz is damaged at or after 0\d\.png: CRC"):
        listed(tmp_path / "a.tar.gz")


def test_a_sparse_member_is_rejected(tmp_path: Path) -> None:
    hole = tmp_path / "hole.png"
    hole.write_bytes(IMAGES["00.png"])
    os.truncate(hole, 2**20)
    command = ["tar", "-cSf", "a.tar", "--format=gnu", "hole.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [*listed(tmp_path / "a.tar").problems] == ["hole.png"]


def test_names_with_dots_are_not_one_sample(tmp_path: Path) -> None:
    members = {"a.1.png": b"", "a.1.cls": b"0", "a.2.png": b"", "a.2.cls": b"1"}
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UserError, match=r"a\.1\.cls and a\.2\.cls are of one sample"):
        labels(path, labels="cls")


def test_the_name_of_an_archive_in_a_folder_with_a_dot_is_a_label(tmp_path: Path) -> None:
    for folder, name in (("v1.0", "cats"), ("v1.1", "dogs")):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / f"{name}.tar", {f"{name}.png": b""})
    assert {*labels(tmp_path, labels="folder").values()} == {"cats", "dogs"}


def test_linked_archives_are_read(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.zip").symlink_to(write_zip(tmp_path / "blob", IMAGES))
    assert contents(tmp_path / "cache") == IMAGES


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_cut_archive_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    (write_zip if ending == "zip" else write_tar)(path, IMAGES)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=rf"data: a\.{ending} is damaged at or after "):
        listed(path)


def test_a_changed_byte_in_a_zip_file_is_detected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", IMAGES)
    places = listed(path).images["location"]
    data = bytearray(path.read_bytes())
    data[data.index(IMAGES["03.png"]) + 60] ^= 1
    path.write_bytes(data)

    assert archive.read(places[2]) == IMAGES["02.png"]
    with pytest.raises(OSError, match="damaged here"):
        archive.read(places[3])


def test_an_archive_that_changed_while_it_was_read_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", IMAGES)
    places = listed(path).images["location"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match="the archive ends within it"):
        archive.read(places[5])


def test_unusable_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as twice:
        for _ in range(2):
            twice.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(UserError, match=r"1\.png: it holds two images of this name"):
        listed(path)
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("./1.png", b"")
    with pytest.raises(UserError, match=r"1\.png: it holds two images of this name"):
        listed(tmp_path / "twice.zip")
    with pytest.raises(UserError, match=r"no images in a\.zip; skipped: 1 \.txt"):
        listed(write_zip(tmp_path / "a.zip", {"a.txt": b""}))
    (tmp_path / "a.7z").touch()
    with pytest.raises(UserError, match=r"a\.7z: its ending is none of \.zip"):
        listed(tmp_path / "a.7z")
