"""The classifiers under the scores: uint8 images in, features and logits out.

`inception` is the literature's Inception-v3 (through torch-fidelity's extractor),
`torchvision` is torchvision's, `trained` a small CNN fitted to labelled images by
`small_cnn.py`. All are frozen, in eval mode, batch norms folded into convolutions.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featgan.errors import UserError
from featgan.regular_file import open_regular

INCEPTION_SIZE = 299
"""Side, in pixels, of the images Inception-v3 was trained on."""


class Classifier:
    """A frozen network on one device: uint8 images [n, 3, S, S] -> float32 logits [n, classes].

    `name` goes into every score's protocol and tells classifiers apart; `digest` is the
    SHA-256 of what was loaded; `description` is one line for people.
    """

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        description: str,
        prepare: Callable[[Tensor], Tensor],
        body: nn.Module,
        head: nn.Linear,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Take images prepared by `prepare` through `body` (in `dtype`) and `head` (fp32)."""
        self.name, self.digest, self.description = name, digest, description
        self.device, self.dtype = device, dtype
        self.classes, self.width = head.out_features, head.in_features
        self.prepare = prepare
        body = fold_batch_norms(body.eval()).requires_grad_(False)
        # a GPU is quicker with channels last only where its tensor cores compute
        exact = device.type == "cuda" and dtype == torch.float32
        self.layout = torch.contiguous_format if exact else torch.channels_last
        self.body = body.to(device, dtype).to(memory_format=self.layout)
        self.head = head.to(device, torch.float32).requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of uint8 `images` [n, 3, S, S]."""
        return self.features_and_logits(images)[1]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's inputs [n, width] and outputs [n, classes], both float32."""
        if images.dtype != torch.uint8:
            raise TypeError(f"a classifier takes uint8 images, as they are saved: {images.dtype}")
        with torch.inference_mode(), _exact_fp32(self.device, self.dtype):
            inputs = self.prepare(images.to(self.device))
            inputs = inputs.to(self.dtype, memory_format=self.layout)
            features = self.body(inputs).float()
            return features, self.head(features)


@contextmanager
def _exact_fp32(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Keep cuDNN's TF32, its default, out of fp32 scores; its flags are put back after."""
    cudnn = torch.backends.cudnn
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    with cudnn.flags(True, benchmark, deterministic=deterministic, allow_tf32=False):
        yield


def fold_batch_norms(body: nn.Module) -> nn.Module:
    """Fold each block's `bn` into its `conv`, in place: the same function, one pass less."""
    for block in body.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return body


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize float images [n, c, H, W] to `size` as `tf.image.resize_bilinear` of TF 1 did.

    Output pixel i reads at i · H / size, corners not aligned and centres not shifted: the
    resize inside the graph that the published Inception Scores came from. Bilinear
    resizing is linear and separable, so it is two small matrix products.
    """
    rows = _resize_matrix(images.shape[2], size, images.device)
    columns = _resize_matrix(images.shape[3], size, images.device)
    return rows @ (images @ columns.T)


@lru_cache(maxsize=8)
def _resize_matrix(source: int, size: int, device: torch.device) -> Tensor:
    """Return the weights [size, source] with which each output pixel reads its two sources."""
    position = torch.arange(size, dtype=torch.float32) * torch.tensor(source / size)
    low = position.long()
    high = (low + 1).clamp_max(source - 1)
    share = position - low
    matrix = torch.zeros(size, source)
    matrix.scatter_add_(1, low[:, None], 1 - share[:, None])
    matrix.scatter_add_(1, high[:, None], share[:, None])
    return matrix.to(device)


def _prepare_inception(images: Tensor) -> Tensor:
    # (x - 128) / 128 commutes with the resize and is exact in fp32, so the few pixels go first.
    return resize_like_tensorflow1((images.float() - 128) / 128, INCEPTION_SIZE)


def _prepare_torchvision(images: Tensor) -> Tensor:
    # ImageNet's normalisation and the network's own `transform_input` cancel to x / 127.5 - 1.
    size = (INCEPTION_SIZE, INCEPTION_SIZE)
    return F.interpolate(images.float() / 127.5 - 1, size, mode="bilinear", antialias=True)


def load_inception(
    weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Load the Inception-v3 of the literature's scores, from a file or its download.

    Its logits are torch-fidelity's `logits_unbiased`: the published Inception Score
    leaves the last layer's bias out. Raises UserError where the weights cannot be had.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as fidelity
    except ImportError as error:
        raise UserError(
            "the classifier `inception` needs torch-fidelity: pip install 'featgan[inception]', "
            "or set score.classifier to `torchvision` or `trained`"
        ) from error

    def build(state: dict[str, Tensor]) -> nn.Module:
        # torch-fidelity unpickles whatever its file holds. It gets these tensors, saved anew.
        tensors = io.BytesIO()
        torch.save(state, tensors)
        tensors.seek(0)
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=tensors
        )
        network.fc.register_parameter("bias", None)
        return network

    return _load(
        build,
        weights,
        fidelity.URL_INCEPTION_V3,
        name="inception-v3-compat",
        description="Inception-v3 (2015-12-05), 1,008 classes of ImageNet",
        prepare=_prepare_inception,
        device=device,
        dtype=dtype,
    )


def load_torchvision(
    weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Load torchvision's Inception-v3 (IMAGENET1K_V1), from a file or its download.

    Raises UserError where the weights cannot be had.
    """
    from torchvision.models import Inception3, Inception_V3_Weights

    def build(state: dict[str, Tensor]) -> nn.Module:
        network = Inception3(init_weights=False)
        network.load_state_dict(state)
        return network

    return _load(
        build,
        weights,
        Inception_V3_Weights.IMAGENET1K_V1.url,
        name="inception-v3-torchvision",
        description="torchvision's Inception-v3, 1,000 classes of ImageNet",
        prepare=_prepare_torchvision,
        device=device,
        dtype=dtype,
    )


def _load(
    build: Callable[[dict[str, Tensor]], Any],
    weights: str | None,
    url: str,
    *,
    name: str,
    **about: Any,
) -> Classifier:
    """Return the Inception-v3 that `build` makes of the weights, cut before its last layer."""
    state, digest = _read_weights(weights, url)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(state)
    except RuntimeError as error:
        raise UserError(
            f"score.weights: {weights} does not fit this Inception-v3: "
            "name weights of score.classifier"
        ) from error
    skipped = {"fc", "AuxLogits", "dropout"}  # the others are registered in the order they run
    layers = [layer for child, layer in network.named_children() if child not in skipped]
    body = nn.Sequential(*layers, nn.Flatten())
    published = digest.startswith(_published_prefix(url))
    name = name if published else f"{name}-{digest[:6]}"
    return Classifier(name=name, digest=digest, body=body, head=network.fc, **about)


def _published_prefix(url: str) -> str:
    """Return the digest's first digits, which such files carry in their names."""
    return url.rsplit("-", 1)[1].removesuffix(".pth")


def _read_weights(weights: str | None, url: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the file `weights`, or of `url`, and the file's SHA-256."""
    path = Path(weights).expanduser() if weights else _download(url)
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if weights is None and not digest.startswith(_published_prefix(url)):
            raise UserError(f"{path} is damaged: delete it, and it is downloaded again")
        return torch.load(path, map_location="cpu", weights_only=True), digest
    except OSError as error:
        raise UserError(
            f"score.weights: cannot read {path} ({error.strerror}): name a file of the weights at "
            f"{url}, or leave it out to download them"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"score.weights: {path} is no file of weights alone (torch.load with weights_only "
            f"refuses it): name a file of the weights at {url}"
        ) from error


def _download(url: str) -> Path:
    """Return where torch.hub keeps the file of `url`, downloaded and verified if it is new."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), _published_prefix(url), progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the classifier's weights cannot be downloaded ({error}): fetch {url} elsewhere and "
            "set score.weights to the file, or score.classifier to `trained`"
        ) from error
    return path
