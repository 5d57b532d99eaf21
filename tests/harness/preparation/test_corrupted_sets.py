"""A sweep over clean and corrupted data sets; counted, and prepared, in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ray
import torch
from inline import Here, Inline, here

from harness.cluster import connect
from harness.plan.settings import Sweep
from harness.preparation import classifier, real_images
from harness.preparation import prepare as preparation
from harness.records.data_set import load_labels, load_table, read_data_set
from harness.storage.store import Store

__all__ = ["here"]

DIGITS = {"source": "builtin", "set": "digits", "count": 60}
APPLES = {"source": "builtin", "set": "apples", "count": 20}
UNION = {"source": "union", "sources": {"digits": DIGITS, "apples": APPLES}}

SWEEP: dict[str, Any] = {
    "name": "s",
    "data": {
        "clean": DIGITS,
        "noisy": DIGITS | {"corrupt": {"labels": 0.2}},
        "mixed": UNION | {"corrupt": {"mixed": {"apples": 0.3}}},
    },
    "image_size": 32,
    "features": {"weights": "random", "input_size": 32},
    "groups": {"k": 2},
    "gan": {"network": "sngan", "conditional": True, "width": 2, "latent": 4},
    "training": {"stage_epochs": 1, "evaluate_every": 1},
    "score": {"classifier": "trained", "trained_on": ["noisy"], "count": 20, "splits": 2},
    "grid": {"mode": ["ascending"], "seed": [0]},
}


def test_corrupted_sets_are_counted_and_the_classifier_is_clean(
    tmp_path: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_images, "count_features", lambda _, images, device: np.arange(9))
    for module, task in ((classifier, "train"), (real_images, "_measure")):
        monkeypatch.setattr(module, task, Inline(getattr(module, task)))
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(connect, "await_room", lambda *_: None)
    monkeypatch.setattr(here, "count", lambda inputs: inputs.mean(axis=(1, 2, 3)).astype(int))
    store, seen, train = Store(str(tmp_path)), list[Any](), classifier.train_classifier
    monkeypatch.setattr(
        classifier,
        "train_classifier",
        lambda images, numbers, classes, **more: (
            seen.append((numbers, classes)) or train(images, numbers, classes, epochs=1, **more)
        ),
    )
    threads = torch.get_num_threads()
    runs = preparation.prepare_runs(Sweep.model_validate(SWEEP), store, False, lambda *_: None)
    torch.set_num_threads(threads)

    clean, noisy, mixed = (read_data_set(store, run.data_key) for run in runs)
    assert clean.digest == noisy.digest != mixed.digest  # the same images
    assert len({run.signature for run in runs}) == 3
    labels, wrong = load_labels(store, clean), load_labels(store, noisy)
    assert (labels != wrong).sum() == 12
    assert {*wrong} <= {*labels}
    assert load_table(store, noisy.key)["label"].tolist() == labels.tolist()
    ((numbers, classes),) = seen
    assert [classes[number] for number in numbers] == [f"0/{label}" for label in labels]
    origins = load_table(store, mixed.key)["origin"].value_counts().to_dict()
    assert origins == {"digits": 42, "apples": 18}
