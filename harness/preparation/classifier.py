"""The classifier that a sweep trains on the labels of its data sets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import ray
import torch

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.scores.small_cnn import split, train_classifier
from harness.records.data_set import DataSet, held_out, load_table, open_pack
from harness.storage.store import Store

SEED = 0


def classifier_name(store: Store, sets: Sequence[DataSet]) -> str:
    """Return the name of the file of the classifier of data sets, by a hash of their labels.

    Raises UserError where there are too few labels.
    """
    classes = [f"{data.name}/{label}" for data in sets for label in data.classes]
    unlabelled = [data.name for data in sets if not data.classes]
    if unlabelled or len(classes) < 2:
        where = ", ".join(unlabelled or (data.name for data in sets))
        found = "none" if unlabelled else " ".join(classes)
        raise UserError(
            "score.trained_on: a classifier needs a label of each data set and 2 labels or more, "
            f"but {where} has {found}; name data sets that have, or choose the classifier "
            "`inception`"
        )
    labels = [_labels(store, data).to_json() for data in sets]
    return f"{short_hash([data.digest for data in sets], labels)}.safetensors"


@ray.remote(num_cpus=1)
def train(store: Store, sets: Sequence[DataSet]) -> bytes:
    """Return the file of a classifier; its classes are the pairs of data set, by number, and label.

    Their names would make it another classifier wherever a data set is called otherwise.
    """
    images, names = [], []
    for number, data in enumerate(sets):
        labels = _labels(store, data).dropna()
        images.append(open_pack(store, data.key).rows(labels.index.to_numpy()))
        names += [f"{number}/{label}" for label in labels]
    classes, numbers = np.unique(names, return_inverse=True)
    return train_classifier(np.concatenate(images), numbers, classes.tolist(), seed=SEED)


def unseen(store: Store, sets: Sequence[DataSet], data: DataSet) -> np.ndarray:
    """Return, bool [n], which images of a data set the classifier of `sets` was not fitted to."""
    if not sets:
        return np.ones(data.images, bool)
    digests = []
    for each in sets:
        labelled = _labels(store, each).notna().to_numpy()
        digests.append(load_table(store, each.key, ["sha256"])["sha256"].to_numpy()[labelled])
    of_all = np.concatenate(digests)
    _, fitted = split(len(of_all), torch.Generator().manual_seed(SEED))
    own = load_table(store, data.key, ["sha256"])["sha256"]
    return ~own.isin(of_all[fitted.numpy()]).to_numpy()


def _labels(store: Store, data: DataSet) -> pd.Series:
    """Return the label of each image that a classifier may be fitted to, of others none."""
    return load_table(store, data.key)["label"].mask(held_out(store, data))
