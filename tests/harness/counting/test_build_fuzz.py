"""Damaged and enormous images on the real way through Ray: the count lives on and names them."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import cases, encode
from PIL import Image

from featgan.features.settings import FeatureSettings
from featgan.images.decode import BadImage, decode
from harness.counting.build import DataSetBuilder
from harness.records.data_set import DataSet, load_rejected, load_table
from harness.sources import FolderSource
from harness.storage.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)
FIRST_LAYER = FeatureSettings(
    weights="random", input_size=32, network="squeezenet1_1", layer="features.1"
)
"""A thousandth of VGG16's work: what is tried is everything around it."""
LARGE = (8000, 5000)


def large() -> bytes:
    """A photograph of 40 megapixels, about: coarse noise, smoothly enlarged."""
    small = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    image = Image.fromarray(small).resize(LARGE, Image.Resampling.BILINEAR)
    return encode(image, "JPEG", quality=50)


def count(folder: Path, store: Store, features: FeatureSettings = FEATURES) -> DataSet:
    return DataSetBuilder(
        "photos",
        FolderSource(source="folder", path=str(folder)),
        features,
        32,
        store,
        actors=2,
        gpu=False,
        max_rejected=1,
        progress=lambda *_: None,
    ).build()


@pytest.mark.guarantee(
    "Images",
    "Through Ray, damaged files are named and the count goes on, also with huge and 100,000 files",
)
@pytest.mark.usefixtures("ray_session")
def test_damaged_files_are_counted_or_named_one_by_one(tmp_path: Path) -> None:
    folder, store = tmp_path / "photos", Store(str(tmp_path / "store"))
    folder.mkdir()
    expected = {}
    for number, (kind, data) in enumerate(cases(250)):
        name = f"{number:03d} {kind}.jpg"
        (folder / name).write_bytes(data)
        try:
            decode(data)
            expected[name] = ""
        except BadImage as error:
            expected[name] = str(error)
    (folder / "large.jpg").write_bytes(large())
    expected["large.jpg"] = ""
    found = count(folder, store)

    bad = {name: reason for name, reason in expected.items() if reason}
    assert (found.images, found.rejected) == (len(expected) - len(bad), len(bad))
    assert len(bad) > 100
    rejected = load_rejected(store, found)
    assert dict(zip(rejected.image_id, rejected.reason, strict=True)) == bad
    table = load_table(store, found.key).set_index("image_id")["feature_count"]
    assert sorted(table.index) == sorted(expected.keys() - bad.keys())
    assert table.between(1, 4096).all()


@pytest.mark.guarantee(
    "Images",
    "Through Ray, damaged files are named and the count goes on, also with huge and 100,000 files",
)
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.timeout(7200)
def test_100000_small_images_and_one_of_40_megapixels(tmp_path: Path) -> None:
    folder, store = tmp_path / "photos", Store(str(tmp_path / "store"))
    for number in range(100_000):
        pixels = np.random.default_rng(number % 5000).integers(0, 256, (8, 8), np.uint8)
        home = folder / f"{number // 1000:03d}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{number:06d}.pgm").write_bytes(b"P5 8 8 255\n" + pixels.tobytes())
    (folder / "large.jpg").write_bytes(large())
    started = time.monotonic()
    found = count(folder, store, FIRST_LAYER)
    print(f"100,001 images counted in {time.monotonic() - started:.0f} s")
    assert (found.images, found.rejected) == (100_001, 0)
    assert load_table(store, found.key)["image_id"].is_unique
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20, "kilobytes"
