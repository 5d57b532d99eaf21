"""A classifier's features of all real images of a data set, as a file: made once, used by all runs.

Metrics such as FID compare a generator's images with these. The file names the classifier and
has a digest of its numbers, which are restored bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from featgan.errors import UserError
from featgan.scores.classifiers import Classifier
from featgan.scores.metrics import FeatureStatistics

KEY = "featgan real features"
FORMAT = 2


def dump(features: Tensor, classifier: Classifier, name: str) -> bytes:
    """The file of features [n, width], which is to have this name (without its ending)."""
    features = features.cpu().contiguous()
    about = {"format": FORMAT, "name": name, "classifier": classifier.digest}
    # one entry: safetensors writes several in any order
    return save({"features": features}, {KEY: json.dumps(about | {"sha256": _digest(features)})})


def read(path: str, classifier: Classifier) -> FeatureStatistics:
    """What metrics need of the real images, on the classifier's device.

    Raises `UserError` where the file is damaged, another classifier's, or has another's name.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            features = file.get_tensor("features")
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {_ANEW}") from error
    told = [about.get(key) for key in ("format", "name", "classifier")]
    if told != [FORMAT, Path(path).stem, classifier.digest]:
        raise UserError(f"{path} is no file of {classifier.name}'s features; {_ANEW}")
    if about.get("sha256") != _digest(features):
        raise UserError(f"{path} is damaged; {_ANEW}")
    return FeatureStatistics(features.to(classifier.device))


_ANEW = "delete it, and the sweep makes it anew"


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().tobytes()).hexdigest()
