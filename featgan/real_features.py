"""A classifier's features of all real images of a data set, as a file: made once, used by all runs.

Metrics such as FID compare a generator's images with these. The file names the classifier and
has a digest of its numbers, which are restored bit for bit.
"""

from __future__ import annotations

import hashlib

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from featgan.classifiers import Classifier
from featgan.errors import UserError
from featgan.metrics import FeatureStatistics

FORMAT = "featgan real features 1"


def dump(features: Tensor, classifier: Classifier) -> bytes:
    """The file of features [n, width]."""
    features = features.cpu().contiguous()
    about = {"format": FORMAT, "classifier": classifier.digest, "sha256": _digest(features)}
    return save({"features": features}, about)


def read(path: str, classifier: Classifier) -> FeatureStatistics:
    """What metrics need of the real images, on the classifier's device.

    Raises `UserError` where the file is damaged or another classifier's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about, features = file.metadata() or {}, file.get_tensor("features")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); {_ANEW}") from error
    if about.get("format") != FORMAT or about.get("classifier") != classifier.digest:
        raise UserError(f"{path} is no file of {classifier.name}'s features; {_ANEW}")
    if about.get("sha256") != _digest(features):
        raise UserError(f"{path} is damaged; {_ANEW}")
    return FeatureStatistics(features.to(classifier.device))


_ANEW = "delete it, and the sweep makes it anew"


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().tobytes()).hexdigest()
