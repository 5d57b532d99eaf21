from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from containers import png, write_parquet
from sourced import source

from featgan.errors import UserError
from harness.sources import parquet
from harness.sources.listing import Listing

IMAGES = [png(number) for number in range(10)]


def contents(path: object, **settings: Any) -> tuple[list[str], list[bytes], list[str | None]]:
    """Return ids, image files and labels of a source, in the order of its listing."""
    found = source("parquet", path=path, **settings)
    images, read = Listing.of(found.find(32)).images, found.read
    labels = [label if isinstance(label, str) else None for label in images["label"]]
    return images["image_id"].tolist(), [*map(read, images["location"])], labels


@pytest.mark.parametrize("nested", [True, False])
def test_rows_are_images_with_the_hubs_class_names(tmp_path: Path, nested: bool) -> None:
    images = [{"bytes": image, "path": "1.png"} if nested else image for image in IMAGES[:4]]
    path = write_parquet(tmp_path / "a.parquet", images, [1, 0, -1, None], ["pear", "apple"])

    ids, found, labels = contents(str(path), label="label")
    assert ids == [f"a.parquet/{row:09d}" for row in range(4)]
    assert found == IMAGES[:4]
    assert labels == ["apple", "pear", None, None]
    assert contents(str(path))[2] == [None] * 4


def test_labels_without_names_are_text(tmp_path: Path) -> None:
    numbers = write_parquet(tmp_path / "a.parquet", IMAGES[:2], [7, None])
    words = write_parquet(tmp_path / "b.parquet", IMAGES[:2], ["oak", "elm"])

    assert contents(str(numbers), label="label")[2] == ["7", None]
    assert contents(str(words), label="label")[2] == ["oak", "elm"]
    for values, found in (([b"oak", None], ["oak", None]), ([1.0, 2.0], ["1", "2"])):
        other = write_parquet(tmp_path / "c.parquet", IMAGES[:2], values)
        assert contents(str(other), label="label")[2] == found
    lists = write_parquet(tmp_path / "d.parquet", IMAGES[:2], [[1], [2]])
    with pytest.raises(UserError, match=r"d\.parquet cannot be read: "):
        contents(str(lists), label="label")


def test_after_an_error_the_rows_of_a_group_are_read_again(tmp_path: Path, monkeypatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", IMAGES)
    of = source("parquet", path=str(path))
    places = Listing.of(of.find(32)).images["location"]
    monkeypatch.setattr(parquet, "ROWS", 2)  # of three in a group
    assert of.read(places[0]) == IMAGES[0]
    images = parquet._opened(str(path).encode())

    def failing():
        raise OSError("connection reset")
        yield

    images._batches = failing()
    with pytest.raises(OSError, match="connection reset"):
        of.read(places[2])
    assert of.read(places[2]) == IMAGES[2]


def test_several_files_are_one_data_set(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train-00.parquet", IMAGES[:4])
    write_parquet(tmp_path / "data/train-01.parquet", IMAGES[4:7])
    write_parquet(tmp_path / "data/more/x.parquet", IMAGES[7:])
    write_parquet(tmp_path / "data/.cache/x.parquet", IMAGES)
    (tmp_path / "data/README.md").touch()

    ids, found, _ = contents(str(tmp_path / "data"))
    assert ids[0] == "more/x.parquet/000000000"
    assert found == [*IMAGES[7:], *IMAGES[:7]]
    for several in ("data/train-*", "data/train-{00..01}.parquet"):
        assert contents(str(tmp_path / several))[1] == IMAGES[:7]
    both = [str(tmp_path / f"data/{name}.parquet") for name in ("train-01", "more/x")]
    assert contents(both)[1] == [*IMAGES[7:], *IMAGES[4:7]]


def test_images_are_read_in_any_order_and_from_a_bucket(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", IMAGES)
    bucket = fsspec.filesystem("memory")
    bucket.pipe("/bucket/a.parquet", path.read_bytes())
    for place in (str(path), "memory://bucket/a.parquet", "memory://bucket/*.parquet"):
        found = source("parquet", path=place)
        read, rows = found.read, Listing.of(found.find(32)).images["location"]
        order = np.random.default_rng(0).permutation(30) % 10
        assert [read(rows[row]) for row in order] == [IMAGES[row] for row in order]
    bucket.rm("/bucket", recursive=True)


def test_a_row_without_an_image_is_empty(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "x.png"}, None, {"bytes": IMAGES[0], "path": None}]
    assert contents(str(write_parquet(tmp_path / "a.parquet", rows)))[1] == [b"", b"", IMAGES[0]]


def test_a_changed_file_is_another_listing_and_read_again(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", IMAGES[:2])
    found = source("parquet", path=str(path))
    before, read = Listing.of(found.find(32)), found.read
    assert read(before.images["location"][0]) == IMAGES[0]
    write_parquet(path, IMAGES[2:5])
    after = Listing.of(found.find(32))

    assert after.digest() != before.digest()
    assert read(after.images["location"][0]) == IMAGES[2]


def test_limit_draws_the_same_images_from_any_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", IMAGES)
    drawn = [contents(str(tmp_path), limit=4, seed=seed)[0] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert [len({*ids}) for ids in drawn] == [4, 4, 4]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image": "img"}, r"a\.parquet has no column img; it has image, label"),
        ({"label": "class"}, r"a\.parquet has no column class; it has image, label"),
        ({"image": "label"}, r"a\.parquet: column label holds int64, no images"),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", IMAGES[:2], [0, 1])
    with pytest.raises(UserError, match=says):
        contents(str(path), **settings)


def test_class_names_in_some_files_and_numbers_in_others_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", IMAGES[:2], [0, 1], ["pear", "apple"])
    other = write_parquet(tmp_path / "b.parquet", IMAGES[2:4], [1, 0])

    says = r"^data: column label holds classes with names in a\.parquet, without in b\.parquet; g"
    with pytest.raises(UserError, match=says):
        contents(str(tmp_path), label="label")
    assert contents(str(tmp_path))[1] == IMAGES[:4], "labels that nobody asked for"

    found = ["pear", "apple"]
    for labels, names, of_other in (
        ([1, 0], ["apple", "pear"], ["pear", "apple"]),  # each file by its own names
        (["pear", "oak"], None, ["pear", "oak"]),
        ([None, None], None, [None, None]),
    ):
        write_parquet(other, IMAGES[2:4], labels, names)
        assert contents(str(tmp_path), label="label")[2] == found + of_other
    pq.write_table(pq.read_table(other).slice(0, 0), other)
    assert contents(str(tmp_path), label="label")[2] == found


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", IMAGES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"data: a\.parquet cannot be read: "):
        contents(str(path))
    with pytest.raises(UserError, match=r"nowhere is no file, nor are there \.parquet files"):
        contents(str(tmp_path / "nowhere"))
