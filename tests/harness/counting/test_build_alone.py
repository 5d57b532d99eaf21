"""Counting without Ray: what is known, resumed, rejected."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inline import Here
from noise import IMAGES, builder, draw, run
from PIL import Image

from featgan.errors import UserError
from featgan.features.settings import FeatureSettings
from harness.cluster import machine
from harness.counting import build, workers
from harness.records.data_set import (
    DataSet,
    data_record,
    load_rejected,
    load_table,
    read_data_set,
)
from harness.sources import FolderSource
from harness.storage.store import Store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


class Interrupted(Exception):
    pass


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
def test_a_count_ended_by_bad_images_resumes_once_they_are_fixed(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    store = Store(str(tmp_path / "store"))
    here.closed = {f"{number:02d}.png" for number in range(5)}
    with pytest.raises(UserError, match=r"5 of the first 6 of 20 images cannot be used"):
        run(photos, store, max_rejected=0.2)

    here.closed.clear()
    here.forget()
    assert run(photos, store, max_rejected=0.2).images == IMAGES
    assert here.seen == IMAGES - 1  # 05 was counted before


def test_problems_of_the_listing_end_a_count_before_it_begins(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (photos / f"gone {number}.png").symlink_to("nowhere")
    monkeypatch.setattr(workers, "count", lambda *_: pytest.fail("counted"))
    with pytest.raises(UserError, match="8 of the first 8 of 28 images cannot be used"):
        run(photos, Store(str(tmp_path / "store")), max_rejected=0.1)


def interrupt(photos: Path, store: Store) -> None:
    """Stop a count after its first 8 images."""

    def stop(_: str, done: int, __: int | None) -> None:
        if done >= 8:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(photos, store, progress=stop)


def test_an_interrupted_count_resumes_after_its_blocks(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    store = Store(str(tmp_path / "store"))
    interrupt(photos, store)
    assert here.seen == 8
    shown: list[int] = []
    data = run(photos, store, progress=lambda _, done, __: shown.append(done))
    assert (shown[0], here.seen, data.images) == (8, IMAGES, IMAGES)

    (photos / "00.png").rename(photos / "99.png")  # another listing, of the same images
    here.forget()
    assert (run(photos, store).images, here.seen) == (IMAGES, 0)


def test_an_interrupted_count_of_a_changed_source_is_not_lost(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    store = Store(str(tmp_path / "store"))
    interrupt(photos, store)
    (photos / "19.png").rename(photos / "99.png")
    assert (run(photos, store).images, here.seen) == (IMAGES, IMAGES)


def test_a_known_count_is_taken_as_it_is(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    before = load_table(store, run(photos, store).key).set_index("image_id")["feature_count"]
    monkeypatch.setattr(here, "count", lambda inputs: np.full(len(inputs), 5))
    (photos / "new.png").write_bytes((photos / "04.png").read_bytes())
    Image.new("RGB", (30, 30), "red").save(photos / "other.png")
    table = load_table(store, run(photos, store).key).set_index("image_id")["feature_count"]

    assert (table["new.png"], table["other.png"]) == (before["04.png"], 5)
    assert table[before.index].equals(before)


def test_what_a_folder_holds_besides_is_said_and_recorded(
    photos: Path, tmp_path: Path, here: Here
) -> None:
    store, said = Store(str(tmp_path / "store")), list[str]()
    (photos / ".DS_Store").touch()
    (photos / "notes.txt").touch()
    first = run(photos, store, progress=lambda text, *_: said.append(text))
    (photos / "logo.svg").touch()
    second = run(photos, store, progress=lambda text, *_: said.append(text))

    assert (first.key, first.digest) == (second.key, second.digest)
    assert said[-1] == "photos: files skipped: 1 .svg, 1 .txt, 1 hidden"
    record = data_record(store, second, FolderSource(source="folder", path=str(photos)))
    assert record.skipped == {"hidden": 1, ".txt": 1, ".svg": 1}


def test_the_protocol_names_every_maker_of_counts(
    photos: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    versions = machine.versions()
    monkeypatch.setattr(machine, "versions", lambda: versions | {"torch": "1.0"})
    run(photos, store)
    monkeypatch.setattr(machine, "versions", lambda: versions)
    Image.new("RGB", (30, 30), "red").save(photos / "new.png")
    protocol = read_data_set(store, run(photos, store).key).protocol

    assert protocol["versions"]["torch"] == version("torch")
    assert [(made["device"], made["torch"]) for made in protocol["made_with"]] == [
        ("CPU", "1.0"),
        ("CPU", version("torch")),
    ]


def test_a_carriage_return_in_a_name_stays_in_its_row(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = pd.DataFrame({"image_id": ["a\rb.png", "c\r\nd.png"], "reason": ["empty file", "x"]})
    file = build._csv(rows)
    store.put("features/x/rejected.csv", file)
    digest = hashlib.sha256(file).hexdigest()
    data = DataSet(name="x", key="features/x", images=0, rejected=2, rejected_sha256=digest)

    assert load_rejected(store, data).to_dict("list") == rows.to_dict("list")


def test_a_weights_file_that_was_moved_is_the_same(tmp_path: Path) -> None:
    def kind(name: str, content: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(content)
        features = FeatureSettings(weights=str(tmp_path / name))
        return replace(builder(tmp_path, Store(str(tmp_path))), features=features).kind

    assert kind("here.pth", b"same") == kind("there.pth", b"same") != kind("here.pth", b"other")
