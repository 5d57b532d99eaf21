"""What only looks like an image file, of every kind that a folder or a bucket can hold."""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import google_bucket
import pytest
from sourced import save, source

from featgan.errors import UserError
from harness.sources import celeba
from harness.sources import folder as folders
from harness.sources.base import Row
from harness.sources.folder import find_images, read
from harness.sources.listing import Listing


def listed(path: str) -> dict[str, Row]:
    return {row.image_id: row for row in find_images([path], label=False, skipped=Counter())}


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: path.symlink_to("/dev/zero"),  # which never ends
    ],
    ids=["pipe", "socket", "device", "endless device"],
)
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_not_a_file_is_never_opened(
    tmp_path: Path, make: Callable[[Path], object], linked: bool
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    make(tmp_path / "odd" if linked else folder / "odd.png")
    if linked:
        (folder / "odd.png").symlink_to(tmp_path / "odd")
    assert listed(str(folder))["odd.png"].problem == "neither a file nor a folder"


def test_a_link_to_an_image_is_that_image(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere.dat").write_bytes(b"pixels")
    (tmp_path / "photos/link.png").symlink_to(tmp_path / "elsewhere.dat")
    row = listed(str(tmp_path / "photos"))["link.png"]
    assert (row.problem, read(row.location)) == (None, b"pixels")


def test_a_bucket_has_no_folders_to_name() -> None:
    """What lies below `x.jpg/` is read, and that prefix itself is nothing."""
    bucket = fsspec.filesystem("memory")
    bucket.pipe("/named/x.jpg/inside.png", b"pixels")
    assert [*listed("memory://named")] == ["x.jpg/inside.png"]


def test_a_file_over_the_limit_is_named_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MOST_BYTES", 2**20)
    sizes = {"000001.jpg": 2**20, "000002.jpg": 2**20 + 1}
    (tmp_path / celeba.IMAGES).mkdir()
    for name, size in sizes.items():
        (tmp_path / celeba.IMAGES / name).write_bytes(bytes(size))
        fsspec.filesystem("memory").pipe(f"/large/{celeba.IMAGES}/{name}", bytes(size))
    (tmp_path / "list_attr_celeba.txt").write_text("2\nMale\n000001.jpg 1\n000002.jpg 1\n")
    in_bucket = f"memory://large/{celeba.IMAGES}"
    for rows in (
        find_images([str(tmp_path / celeba.IMAGES)], label=False, skipped=Counter()),
        find_images([in_bucket], label=False, skipped=Counter()),
        source("celeba", path=str(tmp_path), attributes={"Male": True}).find(32).rows,
    ):
        found = {row.image_id: row.problem for row in rows}
        assert found == {"000001.jpg": None, "000002.jpg": "over 1 MiB"}


def test_images_of_a_google_bucket_are_listed_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "fruit/red/a b.jpg": b"apple",
        "fruit/grün/c.PNG": b"pear",
        "fruit/notes.txt": b"",
        "odd/1.jpg?sig=2.jpg": b"1",  # as an address with keys
        "odd/at 12:30@home.jpg": b"2",
        "shut/closed.jpg": b"",
    }
    with google_bucket.serving(monkeypatch, files):
        rows = {
            row.image_id: row
            for row in find_images(["gs://pictures/fruit"], label=True, skipped=Counter())
        }
        assert {name: row.label for name, row in rows.items()} == {
            "red/a b.jpg": "red",
            "grün/c.PNG": "grün",
        }
        assert not any(row.problem for row in rows.values())
        assert {read(row.location) for row in rows.values()} == {b"apple", b"pear"}
        named_oddly = find_images(["gs://pictures/odd"], label=False, skipped=Counter())
        assert [read(row.location) for row in named_oddly] == [b"1", b"2"]
        with pytest.raises(FileNotFoundError):
            read(b"gs://pictures/fruit/none.jpg")
        with pytest.raises(OSError, match="Forbidden"):
            read(b"gs://pictures/shut/closed.jpg")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match=r"data: gs:// cannot be read: .*install gcsfs"):
        [*find_images(["gs://pictures/fruit"], label=False, skipped=Counter())]


@pytest.mark.guarantee(
    "Images",
    "A denial by a bucket is a permission error and not an outage",
)
def test_a_denial_by_amazon_is_a_permission_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "somewhere")
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # one made before has no keys
        with pytest.raises(PermissionError):
            read(b"s3://pictures/closed.jpg")
        server.shutdown()


def test_folders_of_a_bucket_that_overlap_are_read_once() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("red/1.png", "2.png"):
        memory.pipe_file(f"/overlap/{name}", b"image")
    folders = ["memory://overlap", "memory://overlap/red", "memory://overlap"]
    assert len([*find_images(folders, label=False, skipped=Counter())]) == 2


@pytest.mark.parametrize("name", ["ETag", "LastModified", "mtime", "created"])
def test_a_changed_image_of_a_bucket_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/versions/1.ppm", b"image")
    info = {"name": "/versions/1.ppm", "type": "file", "size": 5}
    stamps = set()
    for version in ("before", "before", "after"):
        infos = {"/versions/1.ppm": info | {name: version}}
        monkeypatch.setattr(type(memory), "find", lambda *_, infos=infos, **__: infos)
        stamps |= {
            row.stamp for row in find_images(["memory://versions"], label=False, skipped=Counter())
        }
    assert len(stamps) == 2


def test_a_folder_may_be_given_as_a_uri(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"image")
    (row,) = find_images([f"file://{tmp_path}"], label=True, skipped=Counter())
    assert (row.image_id, row.label, read(row.location)) == ("1.png", tmp_path.name, b"image")


@pytest.mark.parametrize(("inner", "labels"), [("", ["lime", "red"]), ("images/", None)])
def test_folders_that_all_have_one_name_are_no_labels(
    tmp_path: Path, inner: str, labels: list[str] | None
) -> None:
    """Tiny ImageNet has `train/n01443537/images/n01443537_0.JPEG`."""
    for label in ("red", "lime"):
        save(tmp_path / f"{label}/{inner}1.png")
    folder = source("folder", path=str(tmp_path), labels="folder")
    upper = source("torchvision", set="ImageFolder", path=str(tmp_path))

    assert Listing.of(upper.find(32)).images["label"].tolist() == ["lime", "red"]
    if labels is None:
        with pytest.raises(UserError, match=r"all 2 folders in .* have the label images; .*ImageF"):
            Listing.of(folder.find(32))
    else:
        assert Listing.of(folder.find(32)).images["label"].tolist() == labels
