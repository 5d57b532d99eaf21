"""A file of a classifier's features of all real images of a data set, shared by its runs.

Metrics such as FID compare a generator's images with these.
"""

from pathlib import Path

from torch import Tensor

from featgan import tensor_file
from featgan.errors import UserError
from featgan.scores.classifiers import Classifier
from featgan.scores.metrics.statistics import FeatureStatistics

KIND = "featgan real features 5"
ADVICE = "delete it; the next sweep recreates it"


def dump(features: Tensor, classifier: Classifier, name: str, held_out: int = 0) -> bytes:
    """Return the bytes of a file `<name>.safetensors` of features [n, width].

    They are in the order in which real images are measured: those that the classifier was not
    fitted to come first, or the `held_out` ones where there are any.
    """
    header = {"name": name, "classifier": classifier.digest, "held_out": held_out}
    return tensor_file.dump(KIND, header, {"features": features})


def read(path: str, classifier: Classifier) -> FeatureStatistics:
    """Load the features of real images onto the classifier's device.

    Raises `UserError` if the file is damaged, or made by another classifier or for another name.
    """
    header, tensors, _ = tensor_file.read(path, KIND, ADVICE)
    held_out = header.pop("held_out", 0)
    if header != {"name": Path(path).stem, "classifier": classifier.digest}:
        raise UserError(f"{path} does not hold features of {classifier.name}; {ADVICE}")
    return FeatureStatistics(tensors["features"].to(classifier.device), held_out)
