"""Values that images are grouped by: through Ray, from tables, kept in the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from inline import Inline
from packed import put_counted

from featgan.errors import UserError
from featgan.features import image_values as image_scores
from featgan.features.counter import FeatureCounter
from featgan.features.selection import values_by_label
from featgan.features.settings import FeatureSettings, GroupSettings, SelectSettings
from featgan.images.decode import resized
from harness.preparation import image_values
from harness.preparation.image_values import ImageValues
from harness.records.data_set import DataSet, load_values
from harness.storage.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)
IMAGES = 11
IDS = [f"{number:02d}" for number in range(IMAGES)]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 16, 16))
    return (noise * np.linspace(0.1, 1, IMAGES)[:, None, None, None]).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path, images: np.ndarray) -> Store:
    store = Store(str(tmp_path / "store"))
    put_counted(store, "features/a-0", images, range(IMAGES), ids=IDS)
    return store


def values(store: Store, **options: Any) -> np.ndarray:
    data = DataSet(name="a", key="features/a-0", digest="0", images=IMAGES)
    settings = GroupSettings(**options)
    key = ImageValues(data, settings, FEATURES, store, False, lambda *_: None).make()
    return load_values(store, data.key, key)


@pytest.mark.usefixtures("ray_session")
def test_values_of_pixels_follow_the_packs_order_and_are_kept(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_values, "PART_BYTES", 3 * 16 * 16 * 3)  # four tasks
    found = values(store, by="entropy")

    assert np.array_equal(found, image_scores.entropy(images))
    (key,) = store.list("features/a-0/scores")
    table = pd.read_parquet(store.local(key))
    assert table["image_id"].tolist() == IDS
    monkeypatch.setattr(ImageValues, "_of_pixels", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(values(store, by="entropy"), found)
    assert image_values.digest(found) != image_values.digest(found[::-1])


@pytest.mark.usefixtures("ray_session")
def test_centrality_is_the_distance_to_the_mean_feature(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_values, "FEATURE_IMAGES", 4)  # parts of both actors
    features = FeatureCounter(FEATURES, torch.device("cpu")).features(resized(images, 32))
    features = features.astype(np.float64)

    expected = np.sqrt(((features - features.mean(axis=0)) ** 2).sum(axis=1))
    assert values(store, by="centrality") == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) == IMAGES

    def first(store: Store, data: DataSet) -> np.ndarray:
        return np.arange(IMAGES) < 3

    monkeypatch.setattr(image_values, "held_out", first)
    expected = np.linalg.norm(features - features[3:].mean(axis=0), axis=1)
    assert values(store, by="centrality") == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("ray_session")
def test_values_among_the_images_of_a_label(
    store: Store, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_values, "FEATURE_IMAGES", 4)
    features = FeatureCounter(FEATURES, torch.device("cpu")).features(resized(images, 32))
    settings = GroupSettings(by="neighbour")
    expected = values_by_label(features, np.full(IMAGES, -1), settings)  # no image has a label

    assert values(store, by="neighbour") == pytest.approx(expected, rel=1e-9)


def test_labels_are_ignored_within_all(store: Store) -> None:
    data = DataSet(name="a", key="features/a-0", digest="0", images=IMAGES, held_out=0.5)
    for within, label in (("label", -1), ("all", 0)):  # none has a label
        settings = SelectSettings(by="core_set", within=within)
        held = image_values.held_out(store, data)
        found = image_values.label_numbers(store, data, settings)
        assert found.tolist() == np.where(held, -2, label).tolist()


OWN = """
def red(images):
    return images[:, 0].mean(axis=(1, 2))

def whole(images):
    return images

def broken(images):
    return images.mean(axis=(1, 2, 3)) / 0 - 1

def raising(images):
    return images["red"]
"""


def test_a_user_defined_function(
    store: Store, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownscores.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(image_values, "_values", Inline(image_values._values))
    monkeypatch.setattr(ray, "get", lambda value: value)

    assert values(store, by="ownscores:red") == pytest.approx(images[:, 0].mean(axis=(1, 2)))
    with pytest.raises(UserError, match=r"uint8 \[11, 3, 16, 16\] for 11 images"):
        values(store, by="ownscores:whole")
    with np.errstate(all="ignore"), pytest.raises(UserError, match=r"inf for '00' of data\.a"):
        values(store, by="ownscores:broken")
    with pytest.raises(
        UserError, match=r"^ownscores:raising: IndexError: .*ownscores\.py, line 12"
    ):
        values(store, by="ownscores:raising")
    with pytest.raises(UserError, match="has no function 'blue'"):
        values(store, by="ownscores:blue")
    (first,) = (key for key in store.list("features/a-0/scores") if "red" in key)
    (tmp_path / "ownscores.py").write_text(OWN.replace("0].mean", "1].mean"))
    data = DataSet(name="a", key="features/a-0", digest="0", images=IMAGES)
    settings = GroupSettings(by="ownscores:red")
    key = ImageValues(data, settings, FEATURES, store, False, lambda *_: None).make()
    assert key != first


def test_random_values_follow_their_seed(store: Store) -> None:
    first, other = values(store, by="random"), values(store, by="random", seed=1)

    assert np.array_equal(first, values(store, by="random"))
    assert len(set(first) | set(other)) == 2 * IMAGES


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_a_table_is_joined_by_image_id(store: Store, tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame({"image_id": [*reversed(IDS), "more"], "age": range(IMAGES + 1)})
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)  # ids such as 00 must stay text
    else:
        table.to_parquet(path)

    found = values(store, by="table", table=str(path), column="age")
    assert found.tolist() == list(range(IMAGES))[::-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,age\n00,1\n", r"10 of the 11 images of data\.a .*, first '01' with 0"),
        ("image_id,old\n00,1\n", "0 columns 'age', not one; it has image_id, old"),
        ("name,age\n00,1\n", "0 columns 'image_id'"),
        ("image_id,age\n00,1\n00,2\n", "first '00' with 2"),
        ("image_id,age\n" + "".join(f"{i},x\n" for i in IDS), "'age' does not hold numbers only"),
        ("image_id,age\n" + "".join(f"{i},\n" for i in IDS), "gives nan for '00'.*11 such"),
        ("image_id,age\n" + "".join(f"{i},1.7e308\n" for i in IDS), "gives 1.7e[+]308 for '00'"),
        ("image_id,age,x,age\n" + "".join(f"{i},1,2,3\n" for i in IDS), "2 columns 'age'"),
        ("", "is not CSV or Parquet"),
        (None, "not a file; give a CSV"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    store: Store, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        values(store, by="table", table=str(path), column="age")
    assert "\n" not in str(caught.value)


def test_a_column_of_dates_or_with_a_missing_number_is_refused(
    store: Store, tmp_path: Path
) -> None:
    day = [pd.NaT, *pd.date_range("2020-01-01", periods=IMAGES - 1)]
    count = pd.array([None, *range(1, IMAGES)], "Int64")
    path = str(tmp_path / "table.parquet")
    pd.DataFrame({"image_id": IDS, "day": day, "count": count}).to_parquet(path)

    with pytest.raises(UserError, match="column 'day' does not hold numbers only"):
        values(store, by="table", table=path, column="day")
    with pytest.raises(UserError, match="gives nan for '00'"):
        values(store, by="table", table=path, column="count")
    pd.DataFrame({"image_id": [[i] for i in IDS], "count": 1}).to_parquet(path)
    with pytest.raises(UserError, match="or image_id no texts"):
        values(store, by="table", table=path, column="count")


def test_a_table_is_not_waited_for_at_a_pipe(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for address in ("", "file://"):
        with pytest.raises(UserError, match="not a file"):
            values(store, by="table", table=f"{address}{tmp_path}/pipe", column="age")
