"""EfficientNet-Lite0 as it is installed: its weights, its preprocessing, its two uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_sample_images
from torch import nn

from featgan.features import network, packaged
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import square
from featgan.scores.classifiers import PACKAGED_SIZE, load_packaged
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import ScoreSettings
from featgan.weights import read_weights

CPU = torch.device("cpu")
PALACE, DAISY = 698, 985
"""ImageNet's classes of scikit-learn's two photographs."""


def settings(**options: object) -> FeatureSettings:
    chosen = {"network": "efficientnet_lite0", "weights": "packaged", "input_size": 64}
    return FeatureSettings.model_validate(chosen | options)


def photographs(size: int) -> np.ndarray:
    return np.stack([square(Image.fromarray(i), size) for i in load_sample_images().images])


def whole(size: int) -> nn.Module:
    found = packaged.build(size).eval()
    found.load_state_dict(read_weights(packaged.weights_path(), "test"))
    return found


def test_counts_are_the_positive_outputs_after_the_last_convolution() -> None:
    images, found = photographs(64), []
    plain = whole(64)
    plain._bn1.register_forward_hook(lambda _, __, outputs: found.append(outputs))
    with torch.inference_mode():
        plain((torch.from_numpy(images).float() - 127) / 128)
    expected = (found[0] > 0).flatten(1).sum(dim=1).numpy()

    counts = FeatureCounter(settings(), CPU).count(images)
    assert np.abs(counts - expected).max() <= 2  # of 5,120: another batch size
    assert network.output_count(settings()) == 1280 * 2 * 2
    assert 1000 < counts.min() < counts.max() < 3000


def test_its_preprocessing_is_the_trainings() -> None:
    """Photographs of a palace and a daisy; with ImageNet's means the palace is a bell cote."""
    images = photographs(224)

    def classes(**options: object) -> list[int]:
        counter = FeatureCounter(settings(layer="_fc", input_size=224, **options), CPU)
        return counter.features(images).argmax(axis=1).tolist()

    assert classes() == [PALACE, DAISY]
    assert classes(preprocessing="torchvision") != [PALACE, DAISY]


def test_its_weights_are_the_packages() -> None:
    digest = network.identity(settings())
    assert packaged.weights_path().stem.endswith(f"-{digest[:8]}")  # as torch.hub's files
    assert network.identity(settings(weights="random")) == "random, seed 0"
    first, other = (network.load(settings(weights="random", seed=seed)) for seed in (0, 1))
    assert not torch.equal(first["_conv_stem.weight"], other["_conv_stem.weight"])


@pytest.mark.parametrize("size", [33, 64, 100])
def test_it_pads_like_tensorflow_at_every_size(size: int) -> None:
    """Five strides of 2, each rounded up."""
    with torch.device("meta"):
        outputs = packaged.build(size).extract_features(torch.empty(1, 3, size, size))
    assert outputs.shape[2:] == (-(-size // 32),) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "imagenet"}, "not those of efficientnet_lite0; set weights to packaged"),
        ({"network": "vgg16"}, "not those of vgg16; set weights to imagenet"),
    ],
)
def test_weights_of_another_network_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**options)


def test_the_layer_is_that_of_the_network_unless_it_is_given() -> None:
    assert settings().layer_label == "efficientnet_lite0 _bn1"
    assert settings(layer="_conv_head").layer == "_conv_head"
    assert FeatureSettings.model_validate(settings().model_dump()) == settings()


def test_as_a_classifier_it_has_the_logits_of_the_whole_network() -> None:
    state = torch.get_rng_state()
    classifier = load_packaged(CPU)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.from_numpy(photographs(PACKAGED_SIZE))
    with torch.inference_mode():
        expected = whole(PACKAGED_SIZE)((images.float() - 127) / 128)
    features, logits = classifier.features_and_logits(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert features.shape == (2, 1280)


def test_a_score_names_the_packaged_classifier() -> None:
    chosen = ScoreSettings(classifier="packaged", count=8, splits=2, batch_size=3)
    score = Score(load_classifier(chosen, CPU), chosen)
    images = torch.from_numpy(photographs(32)).repeat(4, 1, 1, 1)

    assert score.protocol == "IS efficientnet-lite0-128px n=8 splits=2 fp32"
    assert 1 < score.evaluate(lambda start, stop: images[start:stop]).score <= 2
    with pytest.raises(ValidationError, match="packaged has its own"):
        ScoreSettings(classifier="packaged", weights="a.pth")
