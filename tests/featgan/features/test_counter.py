from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_sample_images
from torchvision import transforms
from torchvision.models import vgg16

from featgan.features import counter as features
from featgan.features import vgg
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import square

CPU = torch.device("cpu")
SETTINGS = FeatureSettings(weights="random", input_size=32)


@pytest.fixture(scope="module")
def state() -> vgg.State:
    return vgg.load("random", 0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 3, 32, 32), np.uint8)


def test_count_is_the_number_of_positive_outputs(state: vgg.State, images: np.ndarray) -> None:
    """A plain loop, image by image; kernels of batch size 1 may flip an output at zero."""
    network = vgg.vgg16_to_fc1(state)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        outputs = torch.cat(
            [network(((torch.from_numpy(i) / 255 - mean) / deviation)[None]) for i in images]
        )
    counts = FeatureCounter(SETTINGS, CPU, state).count(images)

    assert counts.dtype == np.int16
    assert counts.std() > 2
    undecided = (outputs.abs() < 1e-5).sum(1).numpy()
    assert (np.abs(counts - (outputs > 0).sum(1).numpy()) <= undecided).all()


def test_counts_are_those_of_torchvisions_own_network_and_transforms(state: vgg.State) -> None:
    """Photographs as everyone counts them: nothing of ours but the decoder and the square."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    crops = [photo.crop((x, 20, x + 300, 320)) for photo in photographs for x in (0, 250)]
    squares = np.stack([square(crop, 224) for crop in crops])
    with torch.device("meta"):  # no memory for the layers that nobody counts
        network = vgg16(weights=None, init_weights=False).eval()
    network.classifier = network.classifier[:1]
    network.load_state_dict(state, assign=True)
    prepare = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    batch = torch.stack([prepare(pixels.transpose(1, 2, 0)) for pixels in squares])
    with torch.inference_mode():
        outputs = network(batch)
    counts = FeatureCounter(FeatureSettings(weights="random"), CPU, state).count(squares)

    assert len(set(counts.tolist())) > 2
    undecided = (outputs.abs() < 1e-5 * outputs.abs().max()).sum(1).numpy()
    assert (np.abs(counts - (outputs > 0).sum(1).numpy()) <= undecided).all()


def test_count_does_not_depend_on_neighbours_or_place(state: vgg.State, images: np.ndarray) -> None:
    counter = FeatureCounter(SETTINGS, CPU, state)
    together = counter.count(images)
    order = np.random.default_rng(1).permutation(len(images))

    assert counter.count(images[order]).tolist() == together[order].tolist()
    assert [int(counter.count(images[i : i + 1])[0]) for i in (0, 5, 10)] == together[::5].tolist()
    assert counter.count(images[:0]).shape == (0,)


def test_keras_preprocessing_is_blue_first_and_only_centred(state: vgg.State) -> None:
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
    ("weights", "preprocessing", "meant"),
    [
        ("imagenet", None, "torchvision"),
        ("vgg16.pth", None, "torchvision"),
        ("vgg16.h5", None, "keras"),
        ("vgg16.hdf5", None, "keras"),
        ("vgg16.h5", "torchvision", "torchvision"),
        ("keras.pth", "keras", "keras"),
    ],
)
def test_a_file_of_keras_means_its_preprocessing(
    weights: str, preprocessing: str | None, meant: str, state: vgg.State
) -> None:
    settings = FeatureSettings(weights=weights, input_size=32, preprocessing=preprocessing)
    assert settings.trained_with == meant
    counter = FeatureCounter(settings, CPU, state)
    assert counter._mean.flatten().tolist() == pytest.approx(features.MEANS[meant])


def test_wrong_size_is_refused(state: vgg.State) -> None:
    with pytest.raises(ValueError, match="not of 32 pixels"):
        FeatureCounter(SETTINGS, CPU, state).count(np.zeros((1, 3, 64, 64), np.uint8))


def test_settings_are_bounded() -> None:
    with pytest.raises(ValidationError, match="input_size"):
        FeatureSettings(input_size=31)
    with pytest.raises(ValidationError, match="preprocessing"):
        FeatureSettings.model_validate({"preprocessing": "caffe"})


@pytest.mark.gpu
def test_gpu_counts_are_the_cpus_up_to_outputs_near_zero(
    state: vgg.State, images: np.ndarray
) -> None:
    there = FeatureCounter(SETTINGS, torch.device("cuda"), state)
    here = FeatureCounter(SETTINGS, CPU, state).count(images)

    assert np.abs(there.count(images) - here).max() <= 2
    assert there.count(images[::-1]).tolist() == there.count(images)[::-1].tolist()
