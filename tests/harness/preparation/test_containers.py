"""One set of images in containers of five kinds is one data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from containers import write_parquet, write_tar, write_zip
from inline import here
from PIL import Image
from sourced import source, write_idx

from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from harness.counting.build import DataSetBuilder
from harness.plan.grid import expand
from harness.plan.settings import Sweep
from harness.plan.signature import signature
from harness.preparation.classifier import classifier_name
from harness.records.data_set import DataSet, held_out, load_table, open_pack
from harness.storage.store import Store

__all__ = ["here"]

NAMES = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
"""The classes of KMNIST."""
LABELS = [0, 3, 3, 1, 2, 0, 2, 1]
BRIGHTEST = np.linspace(60, 255, len(LABELS))[:, None, None]
PIXELS = np.random.default_rng(0).integers(0, BRIGHTEST, (len(LABELS), 28, 28)).astype(np.uint8)
FEATURES = FeatureSettings(weights="random", input_size=32)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def containers(folder: Path) -> dict[str, Any]:
    """Write the images five times, as other files of other names in another order."""
    pngs, bmps = ([encoded(pixels, form) for pixels in PIXELS] for form in ("PNG", "BMP"))
    named = {f"{NAMES[label]}/{n}.png": pngs[n] for n, label in enumerate(LABELS)}
    for name, content in named.items():
        (folder / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "folder" / name).write_bytes(content)
    shards = dict[str, bytes]()
    for number in np.random.default_rng(1).permutation(len(LABELS)):
        shards[f"{number:04d}.bmp"] = bmps[number]
        shards[f"{number:04d}.cls"] = NAMES[LABELS[number]].encode()
    write_tar(folder / "shard.tar.gz", shards)
    write_zip(folder / "a.zip", dict(reversed(named.items())))
    write_parquet(folder / "a.parquet", bmps[::-1], LABELS[::-1], NAMES)
    for part in ("train", "t10k"):
        (raw := folder / "sets/KMNIST/raw").mkdir(parents=True, exist_ok=True)
        write_idx(raw / f"{part}-images-idx3-ubyte", PIXELS)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.array(LABELS))
    path = str(folder)
    return {
        "a": source("folder", path=f"{path}/folder", labels="folder"),
        "b": source("archive", path=f"{path}/a.zip", labels="folder"),
        "c": source("archive", path=f"{path}/shard.tar.gz", labels="cls"),
        "d": source("parquet", path=f"{path}/a.parquet", label="label"),
        "e": source("torchvision", set="KMNIST", path=f"{path}/sets"),
    }


@pytest.mark.guarantee(
    "Images",
    "One set of images in a folder, a zip, a tar, a Parquet file or a torchvision set gives the "
    "same counts, groups, pixels and signatures, and is counted once",
)
def test_five_containers_are_one_data_set(tmp_path: Path, here: Any) -> None:
    sources, store = containers(tmp_path), Store(str(tmp_path / "store"))

    def count(name: str) -> DataSet:
        return DataSetBuilder(
            *(name, sources[name], FEATURES, 32, store),
            actors=1,
            gpu=False,
            max_rejected=0,
            progress=lambda *_: None,
        ).build()

    score = {"classifier": "trained", "trained_on": ["a"]}
    sweep = {"name": "x", "data": {"a": sources["a"]}, "score": score}
    cell = expand(Sweep.model_validate(sweep))[0]
    found = list[Any]()
    for name in sources:
        data = count(name)
        table, pack = load_table(store, data.key), open_pack(store, data.key)
        counts = table["feature_count"].to_numpy()
        groups = FeatureGroups.fit(counts, GroupSettings(k=3))
        classifier = classifier_name(store, [data])
        split = held_out(store, data.model_copy(update={"held_out": 0.5}))
        assert 2 <= split.sum() <= 6  # about half of 8
        found.append(
            (
                table.drop(columns=["image_id", "pack_row"]).to_dict("list"),
                groups.assign(counts).tolist(),
                pack.rows(np.arange(len(pack))).tolist(),
                classifier,
                split.tolist(),
                signature(cell, data.digest, classifier),
            )
        )
    assert found[1:] == [found[0]] * 4
    assert found[0][0]["label"] == [NAMES[LABELS[n]] for n in order_of(found[0][2])]
    assert here.seen == len(LABELS)


def order_of(images: list[Any]) -> list[int]:
    """Return the numbers of packed images, by their mean brightness."""
    means = PIXELS.mean(axis=(1, 2))
    return [int(np.abs(means - np.mean(image)).argmin()) for image in images]
