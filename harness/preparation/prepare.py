"""From the cells of a sweep's grid to runs, and the files that these share.

Data sets, groups, classifier and scores of real images are made when the first run needs them,
and kept in the store.
"""

import json
import re
from functools import cache

import numpy as np
import ray

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features.groups import FeatureGroups
from featgan.features.settings import (
    NONE,
    FeatureSettings,
    GroupSettings,
    SelectSettings,
    ValueSettings,
)
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import read_trained
from featgan.weights import weights_file
from harness.cluster import connect
from harness.cluster.connect import Progress
from harness.counting.build import DataSetBuilder
from harness.plan.grid import Cell, expand
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.plan.signature import signature
from harness.preparation import classifier, image_values
from harness.preparation.image_values import ImageValues
from harness.preparation.real_images import ChosenClassifier, RealImages
from harness.records import data_set
from harness.records.data_set import DataSet
from harness.records.sweep_records import GroupsRecord
from harness.runs.tensorboard import HISTOGRAM_FILE, histogram
from harness.storage.store import Store

NO_NAME = r"[^A-Za-z0-9_.-]+"
"""What a file's name does not hold."""


def prepare_runs(sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> list[Run]:
    """Return the runs of all cells of the sweep; make the files that they share.

    Raises UserError where two cells are the same run.
    """
    preparation = _Preparation(sweep, store, gpu, progress)
    runs = [preparation.run(cell) for cell in preparation.cells]
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        other = first.setdefault((run.cell.data, run.signature), run)
        if other is not run:
            same = (json.dumps(each.cell.as_dict()) for each in (other, run))
            raise UserError(
                f"grid: {' and '.join(same)} are one run, since their difference changes no "
                "result: drop one of them"
            )
    preparation.delete_stale("groups", "left-out", "real")
    return runs


def prepare_groups(sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> None:
    """Count and group the data sets of the sweep's cells, and nothing else that runs need."""
    preparation = _Preparation(sweep, store, gpu, progress)
    for cell in preparation.cells:
        preparation.groups(cell)
    preparation.delete_stale("groups", "left-out")


class _Preparation:
    """Shared files of one sweep, each made when it is first needed."""

    def __init__(self, sweep: Sweep, store: Store, gpu: bool, progress: Progress) -> None:
        self.cells = expand(sweep)
        self._sweep, self._store, self._gpu, self._progress = sweep, store, gpu, progress
        self._written: set[str] = set()

    def run(self, cell: Cell) -> Run:
        """Return the run of a cell."""
        method, data = cell.method, self._count_as(cell, cell.data)
        trained_on = [self._count_as(cell, name) for name in method.score.trained_on or ()]
        chosen = self._classifier(method.score.files, *trained_on)
        values_key, values_digest, _ = self._values(data, method.groups, method.features)
        selected_key, selected_digest, _ = self._selected(data, method.select, method.features)
        digest = self._labelled_digest(data) if method.gan.conditional else data.digest
        return Run(
            sweep=self._sweep.name,
            cell=cell,
            signature=signature(cell, digest, chosen.digest, values_digest, selected_digest),
            data_key=data.key,
            data_digest=data.digest,
            values_key=values_key,
            selected_key=selected_key,
            groups_key=self.groups(cell),
            classifier_key=chosen.key,
            real_key=self._measure_real_images(
                data, method.score.model_dump_json(), chosen, method.features
            ),
            images=data.images,
        )

    def groups(self, cell: Cell) -> str:
        """Return the store key of a cell's groups."""
        method, data = cell.method, self._count_as(cell, cell.data)
        return self._group(data, *_grouped(cell), method.features)[0]

    def delete_stale(self, *kinds: str) -> None:
        """Delete files of earlier settings, which tables would show as this sweep's."""
        for kind in kinds:
            for key in self._store.list(f"{self._sweep.name}/{kind}"):
                if key not in self._written:
                    self._store.delete(key)

    def _count_as(self, cell: Cell, name: str) -> DataSet:
        """Return a data set, counted as a cell asks for."""
        return self._count(name, cell.method.features, cell.method.image_size)

    @cache
    def _count(self, name: str, features: FeatureSettings, image_size: int) -> DataSet:
        """Return the data set with its features counted."""
        data = DataSetBuilder(
            name,
            self._sweep.data[name],
            features,
            image_size,
            self._store,
            actors=self._sweep.resources.feature_actors,
            gpu=self._gpu,
            max_rejected=self._sweep.max_rejected,
            progress=self._progress,
        ).build()
        data_set.check(self._store, data)
        record = data_set.data_record(self._store, data, self._sweep.data[name])
        self._put(f"data/{self._label(data)}.json", record.to_json())
        return data

    @cache
    def _labelled_digest(self, data: DataSet) -> str:
        """Return a hash of a data set with its labels, of which each image has one."""
        return short_hash(data.digest, *data_set.load_labels(self._store, data))

    @cache
    def _values(
        self, data: DataSet, settings: ValueSettings, features: FeatureSettings
    ) -> tuple[str | None, str | None, np.ndarray]:
        """Return store key and digest of the values that `settings.by` names, and the values [n].

        Key and digest are None for feature counts, a part of the data set and of its digest.
        """
        if settings.by in ("feature_count", NONE):
            return None, None, data_set.load_values(self._store, data.key, None)
        key = ImageValues(data, settings, features, self._store, self._gpu, self._progress).make()
        values = data_set.load_values(self._store, data.key, key)
        return key, image_values.digest(values), values

    @cache
    def _selected(
        self, data: DataSet, settings: SelectSettings, features: FeatureSettings
    ) -> tuple[str | None, str | None, np.ndarray]:
        """Return store key and digest of the list of images to train on, None for all; bool [n].

        Images that are left out are listed in the sweep's folder, with their values (without one
        where they are held out).
        """
        if settings.by == NONE and not data.held_out:
            return None, None, np.ones(data.images, bool)
        *_, values = self._values(data, settings, features)
        key = image_values.select(data, settings, values, self._store)
        kept = data_set.load_values(self._store, data.key, key)
        values = np.where(data_set.held_out(self._store, data), np.nan, values)  # most have none
        table = data_set.load_table(self._store, data.key)
        out = table[["image_id"]].assign(value=values)[kept == 0]
        name = f"{self._label(data)}-{re.sub(NO_NAME, '.', settings.by)}-{short_hash(key)[:6]}"
        self._put(f"left-out/{name}.csv", out.to_csv(index=False).encode())
        return key, image_values.digest(kept), kept > 0

    @cache
    def _group(
        self,
        data: DataSet,
        settings: GroupSettings,
        select: SelectSettings,
        features: FeatureSettings,
    ) -> tuple[str, FeatureGroups]:
        """Return the store key of the groups of the images that are selected, and the groups."""
        *_, values = self._values(data, settings, features)
        *_, selected = self._selected(data, select, features)
        try:
            groups = FeatureGroups.fit(values[selected], settings)
        except UserError as error:
            raise UserError(f"data.{data.name}: {error}") from error
        record = GroupsRecord(
            data=self._label(data),
            label=image_values.label(settings, features),
            selected=select.label or ("the images not held out" if data.held_out else ""),
            **vars(groups),
        )
        name = f"groups/{self._label(data)}-{self._group_label(settings, select)}"
        self._put(f"{name}/{HISTOGRAM_FILE}", histogram(settings.by, groups.histogram))
        return self._put(f"{name}.json", record.to_json()), groups

    @cache
    def _classifier(self, files: tuple[str, ...], *trained_on: DataSet) -> ChosenClassifier:
        """Return the classifier that scores a cell's images; `files` are of weights it reads.

        One is trained on the same data sets for all runs, so that their scores compare.
        """
        digests = [weights_file(file, "", "score")[1] for file in files]
        if not trained_on:
            return ChosenClassifier(None, " ".join(digests) or None)

        def train() -> bytes:
            names = " and ".join(data.name for data in trained_on)
            what = f"training a classifier on the labels of {names}, to score generated images"
            connect.await_room({"CPU": 1}, self._progress)
            self._progress(what, 0, None)
            return ray.get(classifier.train.remote(self._store, trained_on))

        name = classifier.classifier_name(self._store, trained_on)
        key = self._store.once(f"{self._sweep.name}/classifier/{name}", train)
        _, _, digest = read_trained(self._store.local(key))
        return ChosenClassifier(key, " ".join((digest, *digests)), trained_on)

    @cache
    def _measure_real_images(
        self, data: DataSet, settings: str, chosen: ChosenClassifier, features: FeatureSettings
    ) -> str | None:
        """Write the measurements of the real images; return the key of their features for metrics.

        `settings` are the ScoreSettings as JSON.
        """
        score, label = ScoreSettings.model_validate_json(settings), self._label(data)
        of_data = (_grouped(cell) for cell in self.cells if cell.data == data.name)
        by_count = next((pair for pair in of_data if pair[0].by == "feature_count"), None)
        groups = self._group(data, *by_count, features)[1] if by_count else None
        real = RealImages(label, data, score, chosen, features, groups, self._gpu)
        record = real.measure(self._store, self._sweep.resources.cpus_per_run, self._progress)
        protocols = short_hash(record.protocol, record.metrics_protocol)[:6]
        self._put(f"real/{label}-{protocols}.json", record.to_json())
        return real.features_key

    def _label(self, data: DataSet) -> str:
        """Return the data set's name, with its key if the grid makes several variants of it."""
        variants = {(cell.method.features, cell.method.image_size) for cell in self.cells}
        return data.name if len(variants) == 1 else f"{data.name}.{data.key[-6:]}"

    def _group_label(self, settings: GroupSettings, select: SelectSettings) -> str:
        """Return how groups are made, with a hash if the grid has several of the same label."""
        labels = [_grouping(*pair) for pair in {*map(_grouped, self.cells)}]
        label = _grouping(settings, select)
        if labels.count(label) == 1:
            return label
        of = [each.model_dump(mode="json") for each in (settings, select)]
        return f"{label}-{short_hash(*of)[:6]}"

    def _put(self, name: str, content: bytes) -> str:
        key = f"{self._sweep.name}/{name}"
        self._store.put(key, content)
        self._written.add(key)
        return key


def _grouped(cell: Cell) -> tuple[GroupSettings, SelectSettings]:
    """Return how a cell's images are grouped, and which; equal for all that select none."""
    select = cell.method.select
    return cell.method.groups, SelectSettings() if select.by == NONE else select


def _grouping(settings: GroupSettings, select: SelectSettings) -> str:
    by = "" if settings.by == "feature_count" else f"{settings.by}-"
    of = "" if select.by == NONE else f"-{select.by}{select.keep:g}"
    return re.sub(NO_NAME, ".", f"{by}{settings.method}-k{settings.k}{of}")
