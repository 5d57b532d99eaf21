"""A whole sweep whose images and results lie in a bucket: killed, continued, and its keys kept."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import serving
from PIL import Image
from polling import await_
from processes import Commands

from harness.storage.store import Store

pytest.importorskip("s3fs")

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SWEEP = """
name: tiny
results: {results}
data: {{photos: {{source: folder, path: {photos}, labels: folder}}}}
image_size: 32
features: {{weights: random, input_size: 32}}
groups: {{k: 2}}
gan: {{width: 2, latent: 4}}
training: {{stage_epochs: 30, evaluate_every: 2, batch_size: 8, learning_rate: 0.01}}
score: {{classifier: trained, trained_on: [photos], count: 16, splits: 2, metrics: [fid]}}
grid: {{mode: [descending, conventional], seed: [0]}}
resources: {{checkpoint_minutes: 0}}
"""


pytestmark = pytest.mark.slow  # three sweeps


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A server on loopback with an empty bucket, and the keys to it in the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(monkeypatch, "AKIAIOSFODNN7EXAMPLE", SECRET):
        store = Store("s3://sweeps")
        store._fs.mkdir("sweeps")
        yield store


def photos(folder: Path) -> Path:
    """Two folders of noise, fine and coarse."""
    random = np.random.default_rng(0)
    for number in range(40):
        label = ("fine", "coarse")[number % 2]
        side = 32 if label == "fine" else 4
        image = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        (folder / label).mkdir(parents=True, exist_ok=True)
        image.resize((32, 32), Image.Resampling.NEAREST).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for Ray's files, of a short path, as that of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="fg", dir="/tmp") as folder:
        yield Path(folder)


def sweep(commands: Commands, tmp_path: Path, results: str, photos: str) -> subprocess.Popen[str]:
    file = tmp_path / "tiny.yaml"
    file.write_text(SWEEP.format(results=results, photos=photos))
    return commands.start("sweep", file, stderr=subprocess.STDOUT)


def left_by(store: Store) -> dict[str, object]:
    """Return scores, generators and what was measured again by key."""
    found: dict[str, object] = {}
    for key in store.list("tiny/runs"):
        if key.endswith("run.json"):
            record = json.loads(store.get(key))
            scores = [evaluation["score"] for evaluation in record["evaluations"]]
            found[key] = record["status"], scores, record["metrics_protocol"]
        if key.endswith("rescored.json"):
            record = json.loads(store.get(key))
            found[key] = record["fresh_scores"], record["last_fresh_scores"], record["qualities"]
        if key.endswith("generator.safetensors"):
            found[key] = store.get(key)
    return found


@pytest.mark.guarantee("Exposure", "Keys of the environment appear in no log of Ray or Tune")
def test_a_killed_sweep_in_a_bucket_continues_and_hides_keys(
    commands: Commands,
    bucket: Store,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = photos(tmp_path / "photos")
    undisturbed = sweep(commands, tmp_path, str(tmp_path / "results"), str(here))
    said, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, said

    bucket._fs.put(str(here), "sweeps/photos", recursive=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    killed = sweep(commands, tmp_path, "s3://sweeps/results", "s3://sweeps/photos")
    results = Store("s3://sweeps/results")

    def saved() -> bool:
        return any("checkpoint" in key for key in results.list("tiny/runs"))

    await_(saved, "a checkpoint", process=killed)
    killed.kill()
    first, _ = killed.communicate()
    # of processes killed just now nothing is tidied up: all that Ray and Tune have logged
    logs = [path for path in temporary.glob("featgan-*/**/*") if path.is_file()]
    assert len(logs) > 10
    assert not [path for path in logs if SECRET.encode() in path.read_bytes()]

    again = sweep(commands, tmp_path, "s3://sweeps/results", "s3://sweeps/photos")
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "Traceback" not in said
    assert "2 of 2 runs finished" in said
    assert left_by(results) == left_by(Store(str(tmp_path / "results")))
    assert len([key for key in left_by(results) if key.endswith("rescored.json")]) == 2
    assert SECRET not in first + said
    assert not [key for key in results.list() if SECRET.encode() in results.get(key)]
