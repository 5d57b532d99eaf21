"""Images of noise, and the count of a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featgan.features.settings import FeatureSettings
from harness.counting.build import DataSetBuilder
from harness.records.data_set import DataSet
from harness.sources import FolderSource
from harness.storage.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)
IMAGES = 20


def draw(folder: Path) -> Path:
    """Write noise of rising coarseness, whose counts differ; the same at every call."""
    folder.mkdir()
    for number in range(IMAGES):
        shape = (number + 2, number + 2, 3)
        small = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        Image.fromarray(small).resize((40, 36)).save(folder / f"{number:02d}.png")
    return folder


def run(folder: Path, store: Store, **options: Any) -> DataSet:
    return builder(folder, store, **options).build()


def builder(folder: Path, store: Store, **options: Any) -> DataSetBuilder:
    keep = options.pop("remove_duplicates", False)
    source = options.pop("source", None)
    source = source or FolderSource(source="folder", path=str(folder), remove_duplicates=keep)
    settings: dict[str, Any] = {
        "actors": 1,
        "gpu": False,
        "max_rejected": 0.5,
        "progress": lambda *_: None,
    }
    return DataSetBuilder("photos", source, FEATURES, 16, store, **settings | options)
