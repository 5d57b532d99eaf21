"""The feature process without Ray: what is known, mended, rejected or locked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from noise import IMAGES, draw, run
from PIL import Image

from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from harness.counting import build, workers
from harness.counting.boundaries import boundary_table
from harness.counting.cache import Known
from harness.records.data_set import DataSet, load_rejected, load_table, read_protocol
from harness.storage.store import Store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


class Interrupted(Exception):
    pass


def fake_count(counts: dict[str, int], bad: dict[str, str], calls: list[list[str]]) -> Any:
    """`counting.count` without Ray, four images at a time; what is `bad` cannot be read."""

    def count(
        rows: pd.DataFrame, source: Any, features: Any, size: int, known: Known, *_: Any
    ) -> Generator[workers.Batch, None, None]:
        names = [os.path.basename(location).decode() for location in rows["location"]]
        calls.append(names)
        for start in range(0, len(rows), 4):
            some, named = rows.iloc[start : start + 4], names[start : start + 4]
            digests = [hashlib.sha256(i.encode()).hexdigest() for i in named]
            found = [known.get(bytes.fromhex(digest)) for digest in digests]
            values = zip(named, found, strict=True)
            yield {
                "index": some["index"].to_numpy(),
                "sha256": np.array(digests, object),
                "problem": np.array([bad.get(i, "") for i in named], object),
                "unreadable": np.array([i in bad for i in named]),
                "count": np.array(
                    [-1 if i in bad else counts.get(i, 7) if k < 0 else k for i, k in values]
                ),
                "image": np.zeros((len(some), 3, size, size), np.uint8),
            }

    return count


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
def test_an_unreadable_image_is_counted_once_it_can_be_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = Store(str(tmp_path / "store")), list[list[str]]()
    bad = {"03.png": "cannot be read: Stale file handle", "11.png": "no permission to read it"}
    monkeypatch.setattr(workers, "count", fake_count({}, bad, calls))
    first = run(photos, store)
    assert (first.images, first.rejected, first.unreadable) == (IMAGES - 2, 2, 2)

    bad.clear()
    mended = run(photos, store)
    assert mended.key == first.key
    assert (mended.images, mended.rejected, mended.unreadable) == (IMAGES, 0, 0)
    assert load_rejected(store, mended).empty
    assert len(load_table(store, mended.key)) == IMAGES
    assert run(photos, store) == mended
    assert [len(call) for call in calls] == [IMAGES, IMAGES]


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
def test_what_stopped_a_count_and_was_mended_is_looked_at_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.counting.shards.SMALLEST", 4)
    store, calls = Store(str(tmp_path / "store")), list[list[str]]()
    bad = {f"{number:02d}.png": "cannot be read: gone" for number in range(5)}
    monkeypatch.setattr(workers, "count", fake_count({}, bad, calls))
    with pytest.raises(UserError, match=r"5 of the first 8 of 20 images cannot be used"):
        run(photos, store, max_rejected=0.2)

    bad.clear()
    assert run(photos, store, max_rejected=0.2).images == IMAGES
    assert len(calls[1]) == 17  # 05, 06 and 07 were counted and stay so


def test_problems_of_the_listing_stop_before_anything_is_counted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (photos / f"gone {number}.png").symlink_to("nowhere")
    monkeypatch.setattr(workers, "count", lambda *_: pytest.fail("counted"))
    with pytest.raises(UserError, match="8 of the first 8 of 28 images cannot be used"):
        run(photos, Store(str(tmp_path / "store")), max_rejected=0.1)


def test_a_data_set_that_another_counts_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    inner: list[str] = []

    def count(*_: Any) -> Generator[workers.Batch, None, None]:
        with pytest.raises(UserError) as caught:
            run(photos, store)
        inner.append(str(caught.value))
        raise Interrupted
        yield {}

    monkeypatch.setattr(workers, "count", count)
    with pytest.raises(Interrupted):
        run(photos, store)
    assert "features/photos-" in inner[0]
    assert "is being run by process" in inner[0]


def test_a_known_count_is_taken_as_it_is(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = Store(str(tmp_path / "store")), list[list[str]]()
    monkeypatch.setattr(workers, "count", fake_count({"04.png": 99}, {}, calls))
    before = run(photos, store)
    monkeypatch.setattr(workers, "count", fake_count({"04.png": 1, "new.png": 5}, {}, calls))
    (photos / "new.png").write_bytes((photos / "04.png").read_bytes())
    table = load_table(store, run(photos, store).key).set_index("image_id")["feature_count"]

    assert (table["04.png"], table["new.png"], before.images) == (99, 5, IMAGES)


def test_all_that_counts_were_made_with_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = Store(str(tmp_path / "store")), list[list[str]]()
    monkeypatch.setattr(workers, "count", fake_count({}, {}, calls))
    versions = build._maker(gpu=False)
    monkeypatch.setattr(build, "_maker", lambda gpu: versions | {"torch": "1.0"})
    run(photos, store)
    monkeypatch.setattr(build, "_maker", lambda gpu: versions | {"device": "GPU"})
    Image.new("RGB", (30, 30), "red").save(photos / "new.png")
    protocol = read_protocol(store, run(photos, store).key)

    assert protocol["versions"]["torch"] == version("torch")
    assert [(made["device"], made["torch"]) for made in protocol["made_with"]] == [
        ("CPU", "1.0"),
        ("GPU", version("torch")),
    ]


def test_boundary_report() -> None:
    groups = FeatureGroups.fit(np.array([10, 11, 12, 20, 21, 30, 60, 60]), GroupSettings(k=3))
    table = boundary_table("some", groups)

    assert table.rows[0][:2] == ["1 | 2", "12 | 20"]
    assert [row[2:] for row in table.rows] == [
        ["1 (12.5%)", "3 (37.5%)", "6 (75.0%)"],  # 12; 10 to 12; 20, 21 and 30 too
        ["1 (12.5%)", "1 (12.5%)", "5 (62.5%)"],  # 30; 30; 11 to 21 too
    ]


def test_a_carriage_return_in_a_name_stays_in_its_row(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = pd.DataFrame({"image_id": ["a\rb.png", "c\r\nd.png"], "reason": ["empty file", "x"]})
    file = build._csv(rows)
    store.put("features/x/rejected.csv", file)
    digest = hashlib.sha256(file).hexdigest()
    data = DataSet("x", "features/x", "d", 0, 2, 0, (), rejected_sha256=digest)

    assert load_rejected(store, data).to_dict("list") == rows.to_dict("list")


def test_a_weights_file_that_was_moved_is_the_same(tmp_path: Path) -> None:
    kinds = []
    for name in ("here.pth", "there.pth"):
        (tmp_path / name).write_bytes(b"the same")
        kinds.append(build._kind(FeatureSettings(weights=str(tmp_path / name))))
    (tmp_path / "there.pth").write_bytes(b"another")
    other = build._kind(FeatureSettings(weights=str(tmp_path / "there.pth")))

    assert kinds[0] == kinds[1] != other
