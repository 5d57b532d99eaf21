"""What runs share: counted data sets, their groups, the trained classifier.

Turns the cells of a grid into runs, whose signatures need the data. Each product is a file
in the store that is made once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache

import numpy as np
import ray

from featgan.errors import UserError
from featgan.features import FeatureSettings
from featgan.groups import FeatureGroups, GroupSettings
from featgan.images import ImagePack
from featgan.scores import train_classifier
from featgan.small_cnn import unpack
from harness.config import Cell, Sweep
from harness.features import DataSet, data_record, load_table, prepare
from harness.store import Store
from harness.trial import Run

Progress = Callable[[str, int, int | None], None]
"""Told what is under way, how many images are done, and of how many if that is known."""

CLASSIFIER_SEED = 0


def prepare_runs(sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> list[Run]:
    """The runs of all cells of the sweep; whatever they share lies in the store afterwards."""
    return _Preparation(sweep, store, gpu, progress).runs()


class _Preparation:
    """Makes each shared thing when the first run asks for it."""

    def __init__(self, sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> None:
        self._sweep, self._store, self._gpu, self._progress = sweep, store, gpu, progress
        self._cells = sweep.cells()
        self._data = cache(self._count)
        self._groups = cache(self._group)
        self._classifier = cache(self._train)

    def runs(self) -> list[Run]:
        return [self._run(cell) for cell in self._cells]

    def _run(self, cell: Cell) -> Run:
        method = cell.method
        data = self._data(cell.data, method.features, method.image_size)
        classifier = digest = None
        if method.score.trained_on:
            sets = [
                self._data(name, method.features, method.image_size)
                for name in method.score.trained_on
            ]
            classifier, digest = self._classifier(*sets)
        return Run(
            sweep=self._sweep.name,
            cell=cell,
            signature=cell.signature(data.digest, digest),
            data_key=data.key,
            groups_key=self._groups(data, method.groups),
            classifier_key=classifier,
        )

    def _count(self, name: str, features: FeatureSettings, image_size: int) -> DataSet:
        """The data set with its features counted."""
        data = prepare(
            name,
            self._sweep.data[name],
            features,
            image_size,
            self._store,
            actors=self._sweep.resources.feature_actors,
            gpu=self._gpu,
            max_rejected=self._sweep.max_rejected,
            progress=self._progress,
        )
        record = data_record(self._store, data, self._sweep.data[name])
        self._put(f"data/{self._label(data)}.json", json.dumps(record, indent=1).encode())
        return data

    def _group(self, data: DataSet, settings: GroupSettings) -> str:
        """Store key of the data set's groups."""
        counts = load_table(self._store, data.key)["feature_count"].to_numpy()
        try:
            groups = FeatureGroups.fit(counts, settings)
        except UserError as error:
            raise UserError(f"data.{data.name}: {error}") from error
        name = f"groups/{self._label(data)}-{settings.method}-k{settings.k}.json"
        return self._put(name, groups.to_json().encode())

    def _train(self, *sets: DataSet) -> tuple[str, str]:
        """Store key and digest of the classifier trained on the labels of data sets.

        Made once, and kept: a sweep must not change its judge.
        """
        made_from = json.dumps([[data.name, data.digest] for data in sets])
        name = hashlib.sha256(made_from.encode()).hexdigest()[:10]
        key = f"{self._sweep.name}/classifier/{name}.safetensors"
        if not self._store.exists(key):
            self._progress("training the classifier", 0, None)
            self._store.put(key, ray.get(_fit.remote(self._store, sets)))
        return key, unpack(self._store.get(key), self._store.join(key))[1]

    def _label(self, data: DataSet) -> str:
        """The data set's name, and its key where the grid makes several variants of it."""
        variants = {(cell.method.features, cell.method.image_size) for cell in self._cells}
        return data.name if len(variants) == 1 else f"{data.name}.{data.key[-6:]}"

    def _put(self, name: str, content: bytes) -> str:
        key = f"{self._sweep.name}/{name}"
        self._store.put(key, content)
        return key


@ray.remote(num_cpus=1)
def _fit(store: Store, sets: tuple[DataSet, ...]) -> bytes:
    """The file of a classifier; its classes are the pairs of data set and label."""
    images, labels = zip(*(_labelled(store, data) for data in sets), strict=True)
    names = np.concatenate(labels)
    classes = sorted(set(names))
    return train_classifier(
        np.concatenate(images), np.searchsorted(classes, names), classes, seed=CLASSIFIER_SEED
    )


def _labelled(store: Store, data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, S, S] that have a label, and `data set/label` of each."""
    table = load_table(store, data.key)
    rows = np.flatnonzero(table["label"].notna())
    if table["label"].nunique() == 0:
        raise UserError(
            f"score.trained_on: {data.name} has no labels; name data sets that have, or choose "
            "the classifier `inception`"
        )
    labels = (data.name + "/" + table["label"].iloc[rows].astype(str)).to_numpy(str)
    return ImagePack.open(store.local(f"{data.key}/pack")).rows(rows), labels
