"""Counts of the paper's own stack: Keras' VGG16 from its `.h5` file counts what Keras counts.

Needs tensorflow: in this environment, or in that of the interpreter named by KERAS_PYTHON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import square

pytest.importorskip("h5py")

IMAGES = 200
KERAS = """
import sys
import numpy as np, keras
folder = sys.argv[1]
keras.utils.set_random_seed(0)
whole = keras.applications.VGG16(weights=None)
whole.save(f"{folder}/vgg16.h5")
images = np.load(f"{folder}/images.npy").transpose(0, 2, 3, 1).astype("float32")
model = keras.Model(whole.input, whole.get_layer("fc1").output)
outputs = model.predict(keras.applications.vgg16.preprocess_input(images), 16, verbose=0)
np.save(f"{folder}/outputs.npy", outputs)
"""


@pytest.mark.slow
def test_counts_equal_keras_but_near_zero(tmp_path: Path) -> None:
    python = os.environ.get("KERAS_PYTHON", sys.executable)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    environment = os.environ | quiet
    if subprocess.run([python, "-c", "import tensorflow"], env=environment, stderr=-3).returncode:
        pytest.skip(f"{python} has no tensorflow; name one that has by KERAS_PYTHON")
    digits = (load_digits().images[:IMAGES] * 15.9).astype(np.uint8)
    images = np.stack([square(Image.fromarray(digit).convert("RGB"), 224) for digit in digits])
    np.save(tmp_path / "images.npy", images)
    subprocess.run([python, "-c", KERAS, str(tmp_path)], env=environment, check=True)
    outputs = np.load(tmp_path / "outputs.npy")

    settings = FeatureSettings(weights=str(tmp_path / "vgg16.h5"), preprocessing="keras")
    counts = FeatureCounter(settings, torch.device("cpu")).count(images)
    theirs = (outputs > 0).sum(1)
    undecided = (np.abs(outputs) < 1e-5 * np.abs(outputs).max()).sum(1)
    differ = np.abs(counts - theirs)
    print(f"{(differ == 0).sum()} of {IMAGES} equal, the others within {differ.max()}")
    assert theirs.std() > 2
    assert (differ <= undecided).all()
    assert (differ == 0).mean() > 0.95
