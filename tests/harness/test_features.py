"""`python harness/features.py FILE` as its user runs it: real processes, a bucket on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.fs as pafs
import pytest
import torch
from buckets import serving
from image_files import encode
from PIL import Image
from polling import await_
from processes import Commands

from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import decode, square
from harness.counting.shards import SMALLEST
from harness.sources import FolderSource
from harness.sources.listing import Listing

IMAGES = 406


def table_of(folder: Path, data: str) -> pd.DataFrame:
    (path,) = folder.glob(f"results/features/{data}-*/features.parquet")
    return pd.read_parquet(path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[pafs.FileSystem]:
    """An empty bucket `pictures` of a server on loopback."""
    with serving(monkeypatch) as place:
        system = pafs.S3FileSystem(
            endpoint_override=place, scheme="http", allow_bucket_creation=True
        )
        system.create_dir("pictures")
        yield system


def put(bucket: pafs.FileSystem, name: str, data: bytes) -> None:
    with bucket.open_output_stream(f"pictures/{name}") as stream:
        stream.write(data)


def png(seed: int) -> bytes:
    """Noise of rising coarseness."""
    pixels = np.random.default_rng(seed).integers(0, 256, (seed + 2, seed + 2, 3), np.uint8)
    return encode(Image.fromarray(pixels).resize((40, 36)), "PNG")


def test_a_bucket_gives_the_same_counts_as_a_folder(
    bucket: pafs.FileSystem, commands: Commands, tmp_path: Path
) -> None:
    for seed in range(12):
        name = f"a/{seed:02d}.png" if seed % 2 else f"b c/ü{seed:02d}.PNG"
        put(bucket, f"some/{name}", png(seed))
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / name).write_bytes(png(seed))
    put(bucket, "some/torn.png", png(5)[:300])
    put(bucket, "some/notes.txt", b"no image")
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"""
results: {tmp_path}/results
data:
  here: {{source: folder, path: {tmp_path}/some, labels: folder}}
  there: {{source: folder, path: "s3://pictures/some", labels: folder}}
image_size: 32
features: {{weights: random, input_size: 32}}
max_rejected: 0.2
score: {{classifier: trained, trained_on: [here], count: 100}}
grid: {{mode: [descending], seed: [0]}}
"""
    )
    code, out, err = commands.run("features", file)

    assert code == 0, err
    here, there = table_of(tmp_path, "here"), table_of(tmp_path, "there")
    assert there.equals(here)
    assert there["label"].value_counts().to_dict() == {"a": 6, "b c": 6}
    assert there["feature_count"].nunique() > 3
    (rejected,) = tmp_path.glob("results/features/there-*/rejected.csv")
    assert rejected.read_text().splitlines()[1].startswith('"torn.png","damaged PNG')
    assert "12 images; 1 rejected" in out
    assert "there: feature groups by kmeans, k = 3" in out
    assert "images within 5 of the next group" in out
    figure = tmp_path / "results/mine/figures/feature-counts.png"
    assert str(figure) in out
    with Image.open(figure) as image:
        assert min(image.size) > 400


def test_a_missing_or_empty_bucket_is_a_one_line_error(bucket: pafs.FileSystem) -> None:
    put(bucket, "texts/notes.txt", b"no image")
    for path, says in (
        ("s3://nobodys/some", "cannot be listed"),
        ("s3://pictures/texts", "no images"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            Listing.of(FolderSource(source="folder", path=path).find(32))
        assert "\n" not in str(caught.value)


def test_a_killed_count_continues_after_its_blocks(commands: Commands, tmp_path: Path) -> None:
    """Kill the command while it counts, run it again, and compare with a plain loop."""
    images = []
    for seed in range(IMAGES):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        path = tmp_path / "noise" / f"{seed:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        images.append(square(decode(path.read_bytes()), 32))
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"""
results: {tmp_path}/results
data: {{noise: {{source: folder, path: {tmp_path}/noise}}}}
image_size: 32
features: {{weights: random, input_size: 32}}
grid: {{mode: [descending], seed: [0]}}
"""
    )
    command = commands.start("features", file)

    def begun() -> bool:
        return any(tmp_path.glob("results/features/noise-*/blocks/*.json"))

    await_(begun, "a block is counted", pause=0.02, process=command)
    command.kill()
    commands.finish(command)
    assert not [*tmp_path.glob("results/features/noise-*/dataset.json")], "it had finished counting"
    left = SMALLEST * (len([*tmp_path.glob("results/features/noise-*/blocks/*.json")]) - 1)

    code, out, err = commands.run("features", file)
    assert code == 0, err
    begun = re.search(r"noise: .*: (\d+) of \d+ images", err)
    assert begun is not None, err
    assert int(begun[1]) >= left, "finished blocks were counted again"
    assert f"{IMAGES} images" in out
    settings = FeatureSettings(weights="random", input_size=32)
    counts = FeatureCounter(settings, torch.device("cpu")).count(np.stack(images))
    table = table_of(tmp_path, "noise").sort_values("image_id")
    assert table["feature_count"].tolist() == counts.tolist()
    shards = sorted(tmp_path.glob("results/features/noise-*/pack/*.npy"))
    assert len(shards) == -(-IMAGES // SMALLEST)
    assert np.array_equal(np.concatenate([np.load(shard) for shard in shards]), np.stack(images))
