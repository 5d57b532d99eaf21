"""What the tests of runs share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from packed import put_counted
from tensorboard.summary.writer import event_file_writer

from featgan.features.settings import FeatureSettings
from featgan.gans.generator_file import generator_bytes
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import load_trained, train_classifier
from harness.records.sweep_records import DataRecord
from harness.storage.store import Store

SCORE = ScoreSettings(classifier="trained", count=20, splits=2, batch_size=16, metrics=["fid"])


@pytest.fixture
def seconds_between_event_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each event file be of another second: TensorBoard orders them by it."""
    now = count(int(time.time()))
    monkeypatch.setattr(event_file_writer.time, "time", lambda: float(next(now)))


@pytest.fixture(scope="session")
def classifier() -> bytes:
    """Return the file of a classifier of dark and light images."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = random.integers(0, 100, (60, 3, 32, 32), np.uint8) + 100 * labels[:, None, None, None]
    return train_classifier(images.astype(np.uint8), labels, ["dark", "light"], seed=0, epochs=1)


@pytest.fixture
def finished_sweep(
    tmp_path: Path, make_run: Callable, save_run: Callable, classifier: bytes
) -> Callable[..., Path]:
    """Return a function that writes a sweep with a finished run for each of some seeds."""

    def write(*seeds: int) -> Path:
        folder = tmp_path / "results" / "try"
        (folder / "classifier").mkdir(parents=True)
        (folder / "classifier" / "other.safetensors").write_bytes(classifier)
        cpu = torch.device("cpu")
        trained = load_trained(folder / "classifier" / "other.safetensors", cpu)
        features = FeatureSettings(weights="random", input_size=40)
        settings = {"score": SCORE.model_dump(), "features": features.model_dump()}
        gan = GanSettings(width=4, latent=8)
        for seed in seeds:
            cell = {"data": "apples", "mode": "ascending", "seed": seed}
            protocol = f"IS {trained.name} n=20 splits=2 fp32"
            run = make_run(cell, [[1.0, 2.0]], [[1]], images=[30], protocol=protocol)
            kept, last = (generator_bytes(build(gan, 32, seed)[0], gan, 32) for seed in (0, 1))
            changes = {
                "data_key": "features/apples-0a1b",
                "settings": run.settings | settings,
                "generator_sha256": hashlib.sha256(kept).hexdigest(),
                "last_generator_sha256": hashlib.sha256(last).hexdigest(),
            }
            save_run(folder, run.model_copy(update=changes))
            (folder / "runs" / run.run / "generator.safetensors").write_bytes(kept)
            (folder / "runs" / run.run / "last_generator.safetensors").write_bytes(last)
        images = np.random.default_rng(1).integers(0, 256, (30, 3, 32, 32), np.uint8)
        store, key = Store(str(tmp_path / "results")), "features/apples-0a1b"
        counted = put_counted(store, key, images, range(100, 130), name="apples", digest="0a1b")
        store.put("try/data/apples.json", DataRecord(**dict(counted)).to_json())
        return folder

    return write
