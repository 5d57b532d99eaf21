"""Ray, commands, synthetic sweep folders, and a small disk."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import Commands

from featgan.scores.image_quality import Qualities
from featgan.staging.progress import Evaluation, StageRecord
from harness.records.run_record import RunRecord, Seconds
from harness.records.sweep_records import CountStatistics, RealRecord, Rescored

PROTOCOL = "IS trained-cnn-0a1b n=1000 splits=10 fp32"

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray instance for all tests that only need Ray: two CPUs, and a GPU that only Ray has."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=10**9,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def own_ray() -> None:
    """Mark a test that starts Ray itself, by a command for example."""


@pytest.fixture
def commands(own_ray: None) -> Iterator[Commands]:
    """Commands that start Ray; they end with the test."""
    commands = Commands()
    yield commands
    commands.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a real disk of 16 MiB and return its folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def fill() -> Callable[..., Path]:
    """Return a function that fills the disk of a folder except for `room` bytes, with one file."""

    def ballast(folder: Path, room: int = 0) -> Path:
        disk, file = os.statvfs(folder), folder / "ballast"
        file.write_bytes(bytes(disk.f_bavail * disk.f_frsize - room))
        return file

    return ballast


def evaluations(scores: list[list[float]], every: int) -> list[Evaluation]:
    """Return evaluations of the given scores, one list for each stage, one every `every` epochs."""
    found, spent = [], 0
    for stage, values in enumerate(scores, 1):
        for number, score in enumerate(values, 1):
            found.append(
                Evaluation(
                    stage=stage,
                    epoch=number * every,
                    epochs_spent=spent + number * every,
                    steps=10 * (spent + number * every),
                    score=score,
                    score_std=0.05,
                    spread=30.0,
                    loss_d=1.3 / (1 + number / 20),
                    loss_g=1 + number / 50,
                    d_real=0.6,
                    d_fake=0.4,
                    images_per_second=200.0 * stage,
                )
            )
        spent += len(values) * every
    return found


def run_record(
    cell: dict[str, Any],
    scores: list[list[float]],
    groups: list[list[int]],
    *,
    images: list[int],
    every: int = 10,
    status: str = "finished",
    reason: str | None = None,
    protocol: str = PROTOCOL,
) -> RunRecord:
    """Return a run with the given scores; peaks and epoch counts follow from them."""
    stages = []
    for number, (values, members) in enumerate(zip(scores, groups, strict=False), 1):
        best = max(values)
        stages.append(
            StageRecord(
                stage=number,
                groups=tuple(members),
                images=images[number - 1],
                epochs=len(values) * every,
                peak_epoch=(values.index(best) + 1) * every,
                peak_score=best,
            )
        )
    axes = "".join(f"-{key}{cell[key]}" for key in cell if key not in ("data", "mode", "seed"))
    return RunRecord(
        run=f"{cell['data']}-{cell['mode']}-seed{cell['seed']}{axes}-0a1b2c3d",
        signature="0a1b2c3d",
        cell=cell,
        settings={
            "training": {
                "stage_epochs": len(scores[0]) * every,
                "evaluate_every": every,
                "batch_size": 64,
            },
            "stages": {"watch": "score"},
        },
        status=status,
        reason=reason,
        score_protocol=protocol,
        stages=stages,
        epochs_to_peak=sum(stage.peak_epoch for stage in stages),
        epochs_spent=sum(stage.epochs for stage in stages),
        final_score=stages[-1].peak_score,
        best_score=max(stage.peak_score for stage in stages),
        evaluations=evaluations(scores, every),
        seconds=Seconds(train=90.0, score=20.0, io=2.0, wait=3.0),
        device="cpu",
        precision="fp32",
        versions={"torch": "2.14.1"},
        started="2026-11-22T19:00:00+00:00",
        updated="2026-11-22T19:02:00+00:00",
    )


def write_run(folder: Path, record: RunRecord) -> None:
    """Write a run's folder with its record and a sample grid at each peak."""
    home = folder / "runs" / record.run
    (home / "samples").mkdir(parents=True)
    (home / "run.json").write_text(record.model_dump_json(indent=1))
    tint = {"descending": 0, "ascending": 1}.get(record.cell["mode"], 2)
    for stage in record.stages:
        random = np.random.default_rng(stage.stage + record.cell["seed"])
        pixels = random.integers(0, 255, (130, 130, 3), np.uint8)
        pixels[..., tint] = 255
        Image.fromarray(pixels).save(home / "samples" / f"stage{stage.stage}.png")


def write_sweep(
    folder: Path,
    *,
    data_sets: tuple[str, ...] = ("apples", "digits"),
    modes: tuple[str, ...] = ("descending", "ascending", "conventional"),
    seeds: int = 3,
    axes: tuple[dict[str, Any], ...] = ({},),
    length: int = 30,
) -> Path:
    """Write a finished sweep of noisy, rising scores that depend on the arguments alone."""
    cells = [
        {"data": data, "mode": mode, "seed": seed, **axis}
        for data in data_sets
        for mode in modes
        for axis in axes
        for seed in range(seeds)
    ]
    for number, cell in enumerate(cells):
        k = 3
        groups = [[*range(k, k - n, -1)] for n in range(1, k + 1)]
        if cell["mode"] == "conventional":
            groups = [[1, 2, 3]]
        random = np.random.default_rng(number)
        scores = []
        for stage in range(len(groups)):
            steps = length * k // len(groups)
            top = 2 + data_sets.index(cell["data"]) + 0.3 * stage
            rise = [top * (1 - math.exp(-(step + 3 + 20 * stage) / 20)) for step in range(steps)]
            scores.append([max(1.0, value + random.normal(0, 0.12)) for value in rise])
        write_run(folder, run_record(cell, scores, groups, images=[200, 450, 600]))
    for data in data_sets:
        write_data(folder, data)
    plan = {"name": folder.name, "cells": cells, "notes": ["VGG16 has random weights."]}
    (folder / "sweep.json").write_text(json.dumps(plan))
    return folder


def write_data(folder: Path, data: str) -> None:
    """Write groups and data record of one data set."""
    random = np.random.default_rng(len(data))
    counts = np.clip(random.normal(1120, 130, 600).round().astype(int), 700, 2100)
    bounds = np.quantile(counts, [0, 0.3, 0.75, 1]).astype(int)
    groups = []
    for number in range(1, 4):
        low = int(bounds[number - 1]) + (number > 1)
        inside = counts[(counts >= low) & (counts <= bounds[number])]
        groups.append(
            {
                "number": number,
                "centroid": float(inside.mean()),
                "size": len(inside),
                "lowest": int(inside.min()),
                "highest": int(inside.max()),
            }
        )
    values, images = np.unique(counts, return_counts=True)
    histogram = {str(value): int(n) for value, n in zip(values, images, strict=True)}
    (folder / "groups").mkdir(exist_ok=True)
    (folder / "groups" / f"{data}-kmeans-k3.json").write_text(
        json.dumps(
            {
                "format": 2,
                "data": data,
                "by": "feature_count",
                "label": "feature count (positive outputs of VGG16 fc1)",
                "method": "kmeans",
                "k": 3,
                "groups": groups,
                "histogram": histogram,
            }
        )
    )
    (folder / "data").mkdir(exist_ok=True)
    record = {
        "name": data,
        "source": {"source": "builtin", "set": data},
        "key": f"features/{data}-0a1b",
        "digest": "0a1b",
        "images": 600,
        "rejected": 1,
        "duplicates": 2,
        "matched": None,
        "protocol": {"weights": "random"},
        "classes": [],
        "rejections": [{"image_id": "bad/<b>1</b>.jpg", "reason": "cannot be decoded"}],
    }
    (folder / "data" / f"{data}.json").write_text(json.dumps(record))


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Build:
    """Return a function that writes a synthetic sweep, with the arguments of `write_sweep`."""
    return lambda **options: write_sweep(tmp_path / "try", **options)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunRecord]:
    """Return `run_record`, which makes a run record from scores."""
    return run_record


@pytest.fixture
def save_run() -> Callable[[Path, RunRecord], None]:
    """Return `write_run`, which writes a run's folder."""
    return write_run


def quality_record(**values: float) -> Qualities:
    """Return plausible image qualities, some of them as given."""
    plausible = {
        "images": 256,
        "outlines": 0.5,
        "colour": 40.0,
        "colourfulness": 40.0,
        "diversity": 50.0,
        "near_duplicates": 0.1,
        "nearest_training": 30.0,
    }
    return Qualities(**plausible | values)


@pytest.fixture
def save_rescored() -> Callable[..., None]:
    """Return a function that writes a run's `rescored.json`."""

    def save(
        folder: Path,
        run: RunRecord,
        *,
        same_protocol: str = PROTOCOL,
        fresh_scores: tuple[float, ...] = (2.0, 2.1),
        last_fresh_scores: tuple[float, ...] = (1.9, 2.0),
        score: float = 2.2,
        metrics_as_real: dict[str, float] | None = None,
        **qualities: float,
    ) -> None:
        record = Rescored(
            generator_sha256=run.generator_sha256 or "0a1b",
            images=10_000,
            protocol="IS trained-cnn-0a1b n=10000 splits=10 fp32",
            score=score,
            score_std=0.02,
            same_protocol=same_protocol,
            fresh_scores=list(fresh_scores),
            last_fresh_scores=list(last_fresh_scores),
            score_as_real=score,
            metrics_as_real=metrics_as_real or {},
            qualities=quality_record(**qualities),
            feature_counts=CountStatistics(images=96, mean=1100.0, sd=90.0),
            device="cpu",
        )
        path = folder / "runs" / run.run / "rescored.json"
        path.write_text(record.model_dump_json())

    return save


@pytest.fixture
def save_real() -> Callable[..., None]:
    """Return a function that writes the measurements of a data set's real images."""

    def save(
        folder: Path,
        data: str,
        score: float = 4.5,
        protocol: str = PROTOCOL,
        metrics: dict[str, float] | None = None,
        **qualities: float,
    ) -> None:
        record = RealRecord(
            name=data,
            digest="0a1b",
            protocol=protocol,
            images=400,
            score=score,
            score_std=0.1,
            metrics=metrics or {},
            metrics_images=(400, 500) if metrics else None,
            qualities=quality_record(**qualities),
            feature_counts=CountStatistics(images=96, mean=1110.0, sd=120.0),
            group_counts={1: CountStatistics(images=30, mean=900.0, sd=20.0)},
        )
        (folder / "real").mkdir(exist_ok=True)
        path = folder / "real" / f"{data}-{len(protocol)}{score}.json"
        path.write_text(record.model_dump_json())

    return save
