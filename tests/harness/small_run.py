"""A run of a second, what it shares with others, and what it leaves; a sweep of eight."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from packed import put_counted

from featgan.features.groups import FeatureGroups
from featgan.features.settings import GroupSettings
from featgan.scores.small_cnn import train_classifier
from harness.plan.grid import Cell
from harness.plan.run import Run
from harness.plan.settings import Method, Sweep
from harness.plan.signature import signature
from harness.records.run_record import RunRecord
from harness.records.sweep_records import GroupsRecord
from harness.storage.store import Store

GROUPS, CLASSIFIER = "features/groups.json", "features/classifier.safetensors"


SWEEP = {
    "name": "s",
    "data": {
        "a": {"source": "builtin", "set": "apples", "count": 45},
        "d": {"source": "builtin", "set": "digits", "count": 90},
    },
    "image_size": 32,
    "gan": {"width": 2, "latent": 4},
    "training": {"stage_epochs": 4, "evaluate_every": 2, "batch_size": 8},
    "score": {"classifier": "trained", "trained_on": ["a"], "count": 16, "splits": 2},
    "grid": {"mode": ["ascending", "conventional"], "seed": [0, 1]},
}


def put_shared(store: Store, *, count: int = 24, k: int = 3, sizes: Iterable[int] = (32,)) -> None:
    """Write what runs share into `features/`: images of each size, groups, a classifier."""
    counts = np.repeat(10 * np.arange(1, k + 1), count // k).astype(np.int16)
    for size in sizes:
        shape = (count, 3, size, size)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        put_counted(store, f"features/{size}", images, counts)
    groups = FeatureGroups.fit(counts, GroupSettings(k=k))
    store.put(GROUPS, GroupsRecord(data="a", label="x", **vars(groups)).to_json())
    trained = train_classifier(images, np.arange(count) % 2, ["x", "y"], seed=0, epochs=1)
    store.put(CLASSIFIER, trained)


def small_run(
    sweep: str = "s",
    *,
    size: int = 32,
    mode: str = "ascending",
    seed: int = 0,
    k: int = 3,
    **training: Any,
) -> Run:
    """Return a run of two evaluations a stage; `training` are further settings."""
    defaults = {"stage_epochs": 2, "evaluate_every": 1, "batch_size": 8, "learning_rate": 0.02}
    method = Method.model_validate(
        {
            "image_size": size,
            "groups": {"k": k},
            "gan": {"width": 2, "latent": 4},
            "training": defaults | training,
            "score": {"classifier": "trained", "trained_on": ["a"], "count": 16, "splits": 2},
        }
    )
    cell = Cell("a", mode, seed, method)
    return Run(sweep, cell, signature(cell, "d", "c"), f"features/{size}", GROUPS, CLASSIFIER)


def options(*, pilot: bool = False, sample_every: int = 100, **resources: Any) -> Sweep:
    """Return a sweep that says how its runs are executed."""
    how = {
        "pilot": {"grace": 1} if pilot else None,
        "sample_every": sample_every,
        "resources": resources,
    }
    return Sweep.model_validate(SWEEP | how)


def read(store: Store, run: Run) -> RunRecord:
    return RunRecord.model_validate_json(store.get(f"{run.folder}/run.json"))


def left_by(store: Store, run: Run) -> list[Any]:
    """Return all that a run leaves, without its timings: record, samples, generator."""
    record = read(store, run).model_dump()
    for timed in ("seconds", "started", "updated", "continued", "machines"):
        del record[timed]
    for evaluation in record["evaluations"]:
        del evaluation["images_per_second"]
    samples = {Path(key).name: store.get(key) for key in store.list(f"{run.folder}/samples")}
    return [record, samples, store.get(f"{run.folder}/generator.safetensors")]
