"""Classifiers of the scores: uint8 images in, features and logits out.

`inception` is the Inception-v3 of the literature, through torch-fidelity's extractor; `packaged`
is EfficientNet-Lite0; `trained` is the small CNN of `small_cnn.py`. All are frozen and in eval
mode; the batch norms of the first and the last are folded into convolutions.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featgan.errors import INSTALL, UserError
from featgan.features import packaged
from featgan.weights import published_digits, read_weights, weights_file

INCEPTION_SIZE = 299
"""Side, in pixels, of the images that Inception-v3 was trained with."""
PACKAGED_SIZE = 128
"""Side, in pixels, of EfficientNet-Lite0's images: a third of the time of the training's 224."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features metrics compare, in place of the classifier's."""

    name: str
    features: Callable[[Tensor], Tensor]
    """Function of uint8 images [n, 3, S, S] on the device that returns float32 [n, width]."""


@dataclass(eq=False)
class Classifier:
    """A frozen network on one device: uint8 images [n, 3, S, S] -> float32 logits [n, classes].

    Images pass through `prepare`, `body` (in `dtype`) and `head` (in fp32).
    """

    name: str
    """Its name in the protocol of every score."""
    digest: str
    """SHA-256 of its weights."""
    prepare: Callable[[Tensor], Tensor]
    body: nn.Module
    head: nn.Linear
    device: torch.device
    dtype: torch.dtype
    feature_network: FeatureNetwork | None = None
    """The network of the features, if it is another one."""

    def __post_init__(self) -> None:
        # on a GPU channels last is faster only with tensor cores
        exact = self.device.type == "cuda" and self.dtype == torch.float32
        self.layout = torch.contiguous_format if exact else torch.channels_last
        body = fold_batch_norms(self.body.eval()).requires_grad_(False)
        self.body = body.to(self.device, self.dtype).to(memory_format=self.layout)
        self.head = self.head.to(self.device, torch.float32).requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of uint8 `images` [n, 3, S, S]."""
        return self.features_and_logits(images)[1]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [n, width] for metrics and logits [n, classes], both float32.

        The features are the last layer's inputs, or those of `feature_network`.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"a classifier takes uint8 images, not {images.dtype}")
        cudnn = torch.backends.cudnn
        flags = cudnn.flags(  # the process's own, but without TF32, cuDNN's default
            True, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        )
        with torch.inference_mode(), flags:
            images = images.to(self.device)
            inputs = self.prepare(images).to(self.dtype, memory_format=self.layout)
            features = self.body(inputs).float()
            logits = self.head(features)
            if self.feature_network is not None:
                features = self.feature_network.features(images)
            return features, logits


def fold_batch_norms(body: nn.Module) -> nn.Module:
    """Fold each block's `bn` into its `conv`, in place: the same function with one pass less."""
    for block in body.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return body


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize float images [n, c, H, W] to `size` as `tf.image.resize_bilinear` of TF 1 did.

    Output pixel i reads at i · H / size: corners are not aligned, centres not shifted. This is
    the resize inside the graph of the published Inception Scores. Bilinear resizing is linear
    and separable, so it is two small matrix products.
    """
    rows = _resize_matrix(images.shape[2], size, images.device)
    columns = _resize_matrix(images.shape[3], size, images.device)
    return rows @ (images @ columns.T)


@lru_cache(maxsize=8)
def _resize_matrix(source: int, size: int, device: torch.device) -> Tensor:
    """Return the weights [size, source] of the two source pixels of each output pixel."""
    position = torch.arange(size, dtype=torch.float32) * torch.tensor(source / size)
    low = position.long()
    high = (low + 1).clamp_max(source - 1)
    share = position - low
    matrix = torch.zeros(size, source)
    matrix.scatter_add_(1, low[:, None], 1 - share[:, None])
    matrix.scatter_add_(1, high[:, None], share[:, None])
    return matrix.to(device)


def _prepare_inception(images: Tensor) -> Tensor:
    # (x - 128) / 128 commutes with the resize and is exact in fp32, so it comes first: fewer pixels
    return resize_like_tensorflow1((images.float() - 128) / 128, INCEPTION_SIZE)


def load_inception(
    weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Load the Inception-v3 of the literature from a file, or download it.

    Its logits are torch-fidelity's `logits_unbiased`: the published Inception Score leaves the
    last layer's bias out. Raises `UserError` if torch-fidelity or the weights are missing.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as fidelity
    except ImportError as error:
        raise UserError(
            f"score.classifier: inception needs torch-fidelity: {INSTALL.format('inception')}, "
            "or set it to trained"
        ) from error
    setting, url = "score.weights", fidelity.URL_INCEPTION_V3
    file, digest = weights_file(weights, url, setting)
    # torch-fidelity runs code that its file holds, so it is given these tensors alone
    tensors = io.BytesIO()
    torch.save(read_weights(file, setting), tensors)
    tensors.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=tensors
            )
    except RuntimeError as error:
        raise UserError(
            f"{setting}: {file} does not fit torch-fidelity's Inception-v3; give the file at {url}"
        ) from error
    network.fc.register_parameter("bias", None)
    # the others are registered in the order in which they run
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    published = digest.startswith(published_digits(url))
    name = "inception-v3-compat" + ("" if published else f"-{digest[:6]}")
    body = nn.Sequential(*layers, nn.Flatten())
    return Classifier(name, digest, _prepare_inception, body, network.fc, device, dtype)


def _prepare_packaged(images: Tensor) -> Tensor:
    pixels = (images.float() - packaged.MEAN) / packaged.DEVIATION
    return nn.functional.interpolate(pixels, PACKAGED_SIZE, mode="bicubic", antialias=True)


def load_packaged(device: torch.device, dtype: torch.dtype = torch.float32) -> Classifier:
    """Load EfficientNet-Lite0, which is installed with its weights."""
    setting = "score.classifier"
    file, digest = weights_file(str(packaged.weights_path()), "", setting)
    with torch.device("meta"):
        network = packaged.build(PACKAGED_SIZE)
    network.load_state_dict(read_weights(file, setting), assign=True)
    head = cast(nn.Linear, network._fc)
    network._fc = nn.Identity()
    name = f"efficientnet-lite0-{PACKAGED_SIZE}px"
    return Classifier(name, digest, _prepare_packaged, network, head, device, dtype)
