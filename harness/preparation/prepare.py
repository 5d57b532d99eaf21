"""What runs share: counted data sets, their groups, the trained classifier.

Turns the cells of a grid into runs, whose signatures need the data. Each product is a file
in the store that is made once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import ray

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.images.pack import ImagePack
from featgan.regular_file import open_regular
from featgan.scores.inception_score import train_classifier
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import read_trained
from harness.counting.build import prepare
from harness.plan.grid import Cell, expand
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.plan.signature import signature
from harness.preparation import image_values, real_images
from harness.preparation.histogram import EVENT_FILE, event_file
from harness.records.data_set import DataSet, check, data_record, load_table
from harness.records.image_values import load_values
from harness.records.sweep_records import DataRecord, GroupsRecord
from harness.storage.store import Store

Progress = Callable[[str, int, int | None], None]
"""Told what is under way, how many images are done, and of how many if that is known."""

CLASSIFIER_SEED = 0


def prepare_runs(sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> list[Run]:
    """The runs of all cells of the sweep; whatever they share lies in the store afterwards."""
    return _Preparation(sweep, store, gpu, progress).runs()


def prepare_groups(sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> None:
    """Count and group the data sets of the sweep's cells, and nothing else that runs need."""
    _Preparation(sweep, store, gpu, progress).group_all()


class _Preparation:
    """Makes each shared thing when the first run asks for it."""

    def __init__(self, sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> None:
        self._sweep, self._store, self._gpu, self._progress = sweep, store, gpu, progress
        self._cells = expand(sweep)
        self._data = cache(self._count)
        self._values = cache(self._value)
        self._groups = cache(self._group)
        self._classifier = cache(self._train)
        self._file = cache(_file_digest)
        self._judged: dict[Any, str | None] = {}  # by settings that hold lists
        self._ceilings: set[str] = set()

    def runs(self) -> list[Run]:
        runs = [self._run(cell) for cell in self._cells]
        first: dict[tuple[str, str], Run] = {}
        for run in runs:
            other = first.setdefault((run.cell.data, run.signature), run)
            if other is not run:
                same = (json.dumps(one.cell.as_dict()) for one in (other, run))
                raise UserError(
                    f"grid: {' and '.join(same)} are one run, since their difference changes no "
                    "result: drop one of them"
                )
        self._forget("groups", {run.groups_key for run in runs})
        self._forget("ceilings", self._ceilings)
        return runs

    def group_all(self) -> None:
        keys = set()
        for method, name in ((cell.method, cell.data) for cell in self._cells):
            data = self._data(name, method.features, method.image_size)
            keys.add(self._groups(data, method.groups, method.features))
        self._forget("groups", keys)

    def _run(self, cell: Cell) -> Run:
        method = cell.method
        data = self._data(cell.data, method.features, method.image_size)
        classifier = None
        if method.score.trained_on:
            sets = [
                self._data(name, method.features, method.image_size)
                for name in method.score.trained_on
            ]
            classifier = self._classifier(*sets)
        judge = classifier and classifier[1]
        if method.score.weights:
            judge = self._file(method.score.weights)
        values, values_digest = self._values(data, _ordering(method.groups), method.features)
        return Run(
            sweep=self._sweep.name,
            cell=cell,
            signature=signature(cell, data.digest, judge, values_digest),
            data_key=data.key,
            data_digest=data.digest,
            values_key=values,
            groups_key=self._groups(data, method.groups, method.features),
            classifier_key=classifier and classifier[0],
            real_key=self._judge(data, method.score, classifier),
            images=data.images,
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
        check(self._store, data)
        record = data_record(self._store, data, self._sweep.data[name])
        sealed = DataRecord.model_validate(record).to_json()
        self._put(f"data/{self._label(data)}.json", sealed)
        return data

    def _value(
        self, data: DataSet, groups: GroupSettings, features: FeatureSettings
    ) -> tuple[str | None, str | None]:
        """Store key and digest of the values that images are grouped by, but for feature counts.

        Those are in the feature table, and in the digest of the data set.
        """
        if groups.by == "feature_count":
            return None, None

        def progress(done: int, total: int | None) -> None:
            self._progress(f"{data.name}: {groups.by}", done, total)

        key = image_values.make(data, groups, features, self._store, self._gpu, progress)
        values = load_values(self._store, data.key, key)
        return key, image_values.digest_of(values)

    def _group(self, data: DataSet, settings: GroupSettings, features: FeatureSettings) -> str:
        """Store key of the data set's groups."""
        key, _ = self._values(data, _ordering(settings), features)
        values = load_values(self._store, data.key, key)
        try:
            groups = FeatureGroups.fit(values, settings)
        except UserError as error:
            raise UserError(f"data.{data.name}: {error}") from error
        name, label = self._label(data), image_values.label(settings, features)
        record = GroupsRecord(data=name, label=label, **vars(groups))
        name = f"groups/{name}-{self._group_label(settings)}"
        self._put(f"{name}/{EVENT_FILE}", event_file(settings.by, groups.histogram))
        return self._put(f"{name}.json", record.to_json())

    def _judge(
        self, data: DataSet, score: ScoreSettings, classifier: tuple[str, str] | None
    ) -> str | None:
        """Store key of the real images' features, if metrics need them; leaves their score."""
        asked = score.model_dump_json(), data, classifier
        if asked not in self._judged:
            self._progress(f"{data.name}: scoring real images", 0, None)
            record, features = real_images.measure(
                data,
                score,
                classifier,
                self._store,
                cpus=self._sweep.resources.cpus_per_run,
                gpu=self._gpu,
            )
            kind = hashlib.sha256(record.protocol.encode()).hexdigest()[:6]
            name = f"ceilings/{self._label(data)}-{kind}.json"
            self._ceilings.add(self._put(name, record.to_json()))
            self._judged[asked] = features
        return self._judged[asked]

    def _group_label(self, settings: GroupSettings) -> str:
        """How groups are made, with a hash where the grid has several of the same name."""
        kinds = {cell.method.groups for cell in self._cells}
        name = _spelled(settings)
        if sum(_spelled(kind) == name for kind in kinds) == 1:
            return name
        return f"{name}-{hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:6]}"

    def _forget(self, kind: str, wanted: set[str]) -> None:
        """Delete what belongs to earlier settings: tables would show it as this sweep's."""
        for key in self._store.list(f"{self._sweep.name}/{kind}"):
            folder = key.rpartition("/")[0]  # TensorBoard's histogram lies in a folder of its name
            if key not in wanted and f"{folder}.json" not in wanted:
                self._store.delete(key)

    def _train(self, *sets: DataSet) -> tuple[str, str]:
        """Store key and digest of the classifier trained on the labels of data sets.

        Made once, and kept: a sweep must not change its judge.
        """
        classes = sorted(f"{data.name}/{label}" for data in sets for label in data.classes)
        if len(classes) < 2:
            raise UserError(
                "score.trained_on: a classifier needs 2 labels or more, but "
                f"{', '.join(data.name for data in sets)} has {' '.join(classes) or 'none'}; name "
                "data sets that have, or choose the classifier `inception`"
            )
        labels = (load_table(self._store, data.key)["label"].to_json() for data in sets)
        told = [hashlib.sha256(column.encode()).hexdigest() for column in labels]
        made_from = json.dumps(
            [[data.name, data.digest, label] for data, label in zip(sets, told, strict=True)]
        )
        name = short_hash(made_from)
        key = f"{self._sweep.name}/classifier/{name}.safetensors"
        if not self._store.exists(key):
            self._progress("training the classifier", 0, None)
            self._store.put(key, ray.get(_fit.remote(self._store, sets)))
        training, _, digest = read_trained(self._store.local(key))
        if [*training.classes] != classes:
            raise UserError(
                f"{self._store.join(key)}: was trained on other data; remove it, and it is "
                "trained again"
            )
        return key, digest

    def _label(self, data: DataSet) -> str:
        """The data set's name, and its key where the grid makes several variants of it."""
        variants = {(cell.method.features, cell.method.image_size) for cell in self._cells}
        return data.name if len(variants) == 1 else f"{data.name}.{data.key[-6:]}"

    def _put(self, name: str, content: bytes) -> str:
        key = f"{self._sweep.name}/{name}"
        self._store.put(key, content)
        return key


def _ordering(settings: GroupSettings) -> GroupSettings:
    """What decides the values alone: not how they are cut."""
    return GroupSettings(**settings.model_dump(include={"by", "seed", "table", "column"}))


def _spelled(settings: GroupSettings) -> str:
    name = f"{settings.method}-k{settings.k}"
    if settings.by != "feature_count":
        name = f"{settings.by}-{name}"
    return re.sub(r"[^A-Za-z0-9_.-]+", ".", name)


def _file_digest(path: str) -> str:
    """What is in a classifier's file, wherever it lies: another file is another judge."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"score.weights: {path}: {error.strerror}") from error


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
