"""What runs share, where it lies in the store already."""

from types import SimpleNamespace

import numpy as np
import pytest

from featgan.errors import UserError
from featgan.small_cnn import METADATA, train_classifier, unpack
from harness.preparation import _Preparation
from harness.store import Store

DATA = SimpleNamespace(name="a", digest="d")


@pytest.fixture(scope="module")
def trained():
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    return train_classifier(images, np.arange(24) % 2, ["x", "y"], seed=0, epochs=1)


@pytest.fixture
def classifier_of(tmp_path, monkeypatch):
    """The classifier that a sweep takes when its file holds the given bytes."""
    store = Store(str(tmp_path))
    sweep = SimpleNamespace(name="s", cells=list)

    def take(content):
        monkeypatch.setattr(store, "exists", lambda key: store.put(key, content) or True)
        return _Preparation(sweep, store, False, print)._train(DATA)

    return take


def test_a_classifier_that_is_there_is_taken_and_not_trained_again(classifier_of, trained):
    key, digest = classifier_of(trained)
    assert key.startswith("s/classifier/")
    assert digest == unpack(trained, key)[1]


def test_a_classifier_of_another_version_is_refused(classifier_of, trained, tmp_path):
    older = METADATA.encode()[:-1] + b"1"
    with pytest.raises(UserError, match=r"another version.*delete it") as error:
        classifier_of(trained.replace(METADATA.encode(), older))
    assert str(error.value).startswith(str(tmp_path / "s/classifier"))


def test_a_damaged_classifier_is_refused(classifier_of, trained):
    with pytest.raises(UserError, match=r"no whole file .*delete it and sweep again"):
        classifier_of(trained[:-10])
