"""The features of published precision, recall, density and coverage: those of VGG16's fc2."""

import torch
from torch import Tensor
from torchvision.transforms.functional import normalize

from featgan.features import network
from featgan.features.counter import DEVIATIONS, MEANS
from featgan.features.settings import FeatureSettings
from featgan.scores.classifiers import FeatureNetwork, resize_like_tensorflow1


def load_vgg16(weights: str | None, device: torch.device) -> FeatureNetwork:
    """Load VGG16 up to its second fully connected layer, from a file or torchvision's copy.

    As in torch-fidelity, images are resized as TensorFlow 1 did, and features [n, 4096] are taken
    after ReLU. Raises UserError if the weights cannot be read.
    """
    settings = FeatureSettings(layer="classifier.4", weights=weights or "imagenet")
    state = network.load(settings, "score.features_weights")
    vgg16 = network.build(settings, state).to(device)
    statistics = [*MEANS["torchvision"]], [*DEVIATIONS["torchvision"]]

    def features(images: Tensor) -> Tensor:
        pixels = resize_like_tensorflow1(images.float(), settings.input_size)
        return vgg16(normalize(pixels, *statistics))

    suffix = f"-{network.identity(settings)[:6]}" if weights else ""
    return FeatureNetwork(f"vgg16-fc2{suffix}", features)
