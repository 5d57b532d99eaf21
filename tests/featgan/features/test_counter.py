from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_sample_images
from torchvision import transforms
from torchvision.models import vgg16

from featgan.features import network
from featgan.features.counter import STATISTICS, FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import square
from featgan.weights import State

CPU = torch.device("cpu")
SETTINGS = FeatureSettings(weights="random", input_size=32)


@pytest.fixture(scope="module")
def state() -> State:
    return network.load(SETTINGS)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 3, 32, 32), np.uint8)


def test_count_is_the_number_of_positive_outputs(state: State, images: np.ndarray) -> None:
    """A plain loop, image by image; kernels of batch size 1 may flip an output at zero."""
    plain = network.build(SETTINGS, state)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        outputs = torch.cat(
            [plain(((torch.from_numpy(i) / 255 - mean) / deviation)[None]) for i in images]
        )
    counts = FeatureCounter(SETTINGS, CPU, state).count(images)

    assert counts.dtype == np.int16
    assert counts.std() > 2
    undecided = (outputs.abs() < 1e-5).sum(1).numpy()
    assert (np.abs(counts - (outputs > 0).sum(1).numpy()) <= undecided).all()


def test_counts_equal_torchvisions(state: State) -> None:
    """Photographs with torchvision's network and transforms, and our decoder and square."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    crops = [photo.crop((x, 20, x + 300, 320)) for photo in photographs for x in (0, 250)]
    squares = np.stack([square(crop, 224) for crop in crops])
    with torch.device("meta"):  # no memory for the layers that are not counted
        whole = vgg16(weights=None, init_weights=False).eval()
    whole.classifier = whole.classifier[:1]
    whole.load_state_dict(state, assign=True)
    prepare = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    batch = torch.stack([prepare(pixels.transpose(1, 2, 0)) for pixels in squares])
    with torch.inference_mode():
        outputs = whole(batch)
    counts = FeatureCounter(FeatureSettings(weights="random"), CPU, state).count(squares)

    assert len(set(counts.tolist())) > 2
    undecided = (outputs.abs() < 1e-5 * outputs.abs().max()).sum(1).numpy()
    assert (np.abs(counts - (outputs > 0).sum(1).numpy()) <= undecided).all()


def test_counts_do_not_depend_on_the_other_images(state: State, images: np.ndarray) -> None:
    counter = FeatureCounter(SETTINGS, CPU, state)
    together = counter.count(images)
    order = np.random.default_rng(1).permutation(len(images))

    assert counter.count(images[order]).tolist() == together[order].tolist()
    assert [int(counter.count(images[i : i + 1])[0]) for i in (0, 5, 10)] == together[::5].tolist()
    assert counter.count(images[:0]).shape == (0,)


def test_keras_preprocessing_is_bgr_and_centred(state: State) -> None:
    """caffe's: BGR minus (103.939, 116.779, 123.68)."""
    counter = FeatureCounter(
        FeatureSettings(weights="random", input_size=32, preprocessing="keras"), CPU, state
    )
    seen = []
    counter._network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    colour = np.array([200, 100, 50], np.uint8)[:, None, None]
    counter.count(np.broadcast_to(colour, (1, 3, 32, 32)))

    pixel = seen[0][0, :, 5, 5].tolist()
    assert pixel == pytest.approx([50 - 103.939, 100 - 116.779, 200 - 123.68], abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "preprocessing", "expected"),
    [
        ("imagenet", None, "torchvision"),
        ("vgg16.pth", None, "torchvision"),
        ("vgg16.h5", None, "keras"),
        ("vgg16.hdf5", None, "keras"),
        ("vgg16.h5", "torchvision", "torchvision"),
        ("keras.pth", "keras", "keras"),
    ],
)
def test_keras_files_imply_keras_preprocessing(
    weights: str, preprocessing: str | None, expected: str, state: State
) -> None:
    settings = FeatureSettings(weights=weights, input_size=32, preprocessing=preprocessing)
    assert settings.trained_with == expected
    counter = FeatureCounter(settings, CPU, state)
    assert counter._mean.flatten().tolist() == pytest.approx(STATISTICS[expected][0])


def test_wrong_size_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match="not of 32 pixels"):
        FeatureCounter(SETTINGS, CPU, state).count(np.zeros((1, 3, 64, 64), np.uint8))


def test_settings_are_bounded() -> None:
    with pytest.raises(ValidationError, match="input_size"):
        FeatureSettings(input_size=31)
    with pytest.raises(ValidationError, match="preprocessing"):
        FeatureSettings.model_validate({"preprocessing": "caffe"})


@pytest.mark.gpu
def test_gpu_counts_equal_the_cpus_but_near_zero(state: State, images: np.ndarray) -> None:
    there = FeatureCounter(SETTINGS, torch.device("cuda"), state)
    here = FeatureCounter(SETTINGS, CPU, state).count(images)

    assert np.abs(there.count(images) - here).max() <= 2
    assert there.count(images[::-1]).tolist() == there.count(images)[::-1].tolist()
