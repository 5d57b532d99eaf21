"""A count whose storage fails at any write: the next ends the same, and counts no part twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featgan.features import FeatureSettings
from featgan.images import ImagePack
from harness import counting, parts
from harness.features import DataSet, check, load_rejected, load_table, prepare
from harness.known import NOT_COUNTED, Known
from harness.sources import FolderSource, SourceSettings
from harness.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)
IMAGES = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven noisy images and an empty file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 20, 20, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"")
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counting without Ray or a network, two images to a part; which indices were decoded."""
    indices: list[int] = []

    def count(
        rows: pd.DataFrame,
        source: SourceSettings,
        settings: FeatureSettings,
        image_size: int,
        known: Known,
        *_: Any,
    ) -> Iterator[dict[str, np.ndarray]]:
        decoder = counting.Decoder(source, settings.input_size, image_size, known)
        for _, row in rows.iterrows():
            batch = {"index": np.array([row["index"]]), "location": [row["location"]]}
            told = decoder.decode(batch)
            new = (told["count"] == NOT_COUNTED) & (told["problem"] == "")
            told["count"] = np.where(new, told["input"].max(axis=(1, 2, 3)), told["count"])
            indices.append(int(row["index"]))
            yield told

    monkeypatch.setattr(counting, "count", count)
    monkeypatch.setattr(parts, "SMALLEST", 2)
    return indices


def counted(photos: Path, store: Store) -> tuple[DataSet, list[Any]]:
    data = prepare(
        "photos",
        FolderSource(source="folder", path=str(photos)),
        FEATURES,
        16,
        store,
        actors=None,
        gpu=False,
        max_rejected=0.5,
        progress=lambda *_: None,
    )
    check(store, data)
    pack = ImagePack.open(store.local(f"{data.key}/pack"))
    table, rejected = load_table(store, data.key), load_rejected(store, data.key)
    images = pack.rows(np.arange(len(pack))).tolist()
    return data, [table.to_dict("list"), rejected.to_dict("list"), images]


def test_a_disk_full_at_any_write_costs_nothing_once_there_is_room(
    photos: Path, tmp_path: Path, decoded: list[int], failing: type[Any]
) -> None:
    root = str(tmp_path / "store")
    watched = failing(root)
    data, expected = counted(photos, watched)
    assert (data.images, data.rejected) == (IMAGES - 1, 1)
    # six parts; what they were made with, three tables, the pack, the protocol, the end; the lock
    assert watched.writes == 6 + 7 + 1
    for nth in range(1, watched.writes):
        Store(root).delete("features")
        decoded.clear()
        with pytest.raises(OSError, match="No space left"):
            counted(photos, failing(root, nth=nth))
        Store(root).delete(f"{data.key}/lock")  # its holder would have ended
        assert counted(photos, Store(root)) == (data, expected), f"write {nth}"
        of_lost_part = len(decoded) - IMAGES
        assert of_lost_part <= 2, f"write {nth}: {of_lost_part} images were counted twice"
        assert not [key for key in Store(root).list("features") if "/parts/" in key]
