"""`python harness/features.py FILE` as its user runs it: real processes, a bucket on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.fs as pafs
import pytest
from PIL import Image

from featgan.errors import UserError
from harness.sources import FolderSource

moto = pytest.importorskip("moto.server")

COMMAND = [sys.executable, str(Path(__file__).parents[2] / "harness" / "features.py")]


def start(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_ADDRESS": "local"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def table_of(folder: Path, data: str) -> pd.DataFrame:
    (path,) = folder.glob(f"results/features/{data}-*/features.parquet")
    return pd.read_parquet(path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[pafs.FileSystem]:
    """An empty bucket `pictures` of a server on loopback."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = pafs.S3FileSystem(
        endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True
    )
    system.create_dir("pictures")
    yield system
    server.stop()


def put(bucket: pafs.FileSystem, name: str, data: bytes) -> None:
    with bucket.open_output_stream(f"pictures/{name}") as stream:
        stream.write(data)


def png(seed: int) -> bytes:
    """Noise of rising coarseness."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (seed + 2, seed + 2, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 36)).save(file, "PNG")
    return file.getvalue()


def test_images_of_a_bucket_are_listed_counted_and_rejected_as_on_disk(
    bucket: pafs.FileSystem, tmp_path: Path
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
    code, out, err = finish(start(file))

    assert code == 0, err
    here, there = table_of(tmp_path, "here"), table_of(tmp_path, "there")
    assert there.equals(here)
    assert there["label"].value_counts().to_dict() == {"a": 6, "b c": 6}
    assert there["feature_count"].nunique() > 3
    (rejected,) = tmp_path.glob("results/features/there-*/rejected.csv")
    assert rejected.read_text().splitlines()[1].startswith("torn.png,damaged PNG")
    assert "12 images; 1 rejected" in out
    assert "there: feature groups by kmeans, k = 3" in out
    assert "Near a boundary: there" in out
    figure = tmp_path / "results/mine/figures/feature-counts.png"
    assert str(figure) in out
    with Image.open(figure) as image:
        assert min(image.size) > 400


def test_a_bucket_that_is_missing_or_empty_is_one_clear_line(bucket: pafs.FileSystem) -> None:
    put(bucket, "texts/notes.txt", b"no image")
    for path, says in (
        ("s3://nobodys/some", "cannot be listed"),
        ("s3://pictures/texts", "no images"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            FolderSource(source="folder", path=path).listing(32)
        assert "\n" not in str(caught.value)
