"""Settings of the feature counts and of the groups, and the names they accept; needs no torch."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from featgan.settings import Settings
from featgan.user_code import choice

PAPER_LAYER = ("vgg16", "classifier.0")
"""Network and layer of the paper: VGG16's first fully connected layer, by torchvision's names."""
PACKAGED = ("efficientnet_lite0", "_bn1")
"""The network that is installed with its weights, and its last convolution's layer."""
NAMED_WEIGHTS = ("imagenet", "packaged", "random")
"""Values of `features.weights` that are no file."""
KERAS_SUFFIXES = (".h5", ".hdf5")
"""Suffixes of Keras' weight files."""
Preprocessing = Literal["torchvision", "keras", "lite"]
GROUPINGS = ("kmeans", "quantile", "balanced")
"""Built-in values of `groups.method`."""
IMAGE_VALUES = {
    "feature_count": "feature count",
    "jpeg_size": "size as a JPEG of quality 75 (bytes)",
    "entropy": "entropy of the grey levels (bits)",
    "edge_density": "edge density (share of the pixels)",
    "centrality": "distance to the mean of the network's features",
    "gaussian": "log-likelihood of the network's features under a Gaussian",
    "ppca": "log-likelihood of the network's features under probabilistic PCA",
    "neighbour": "closeness of the fifth neighbour by the network's features",
    "cluster": "place in a cluster of the network's features, from 0 down",
    "core_set": "place in the core-set of the network's features, from 0 down",
    "random": "random number",
    "table": "column of a table",
}
"""Built-in values of `groups.by` and `select.by`, and a label for each."""
OF_FEATURES = ("centrality", "gaussian", "ppca", "neighbour", "cluster", "core_set")
"""Those of an image among the others, in the space of a network's features."""
NONE = "none"
"""The value of `select.by` that trains on every image."""


class FeatureSettings(Settings):
    """The network that counts the features of an image."""

    network: str = "vgg16"
    """The network: any of torchvision's classifiers by its name there, such as `resnet50`, or
    `efficientnet_lite0`."""
    layer: str = "classifier.0"
    """The layer whose positive outputs are counted, by torchvision's name. By default VGG16's fc1,
    or for `efficientnet_lite0` its last convolution, `_bn1`."""
    weights: str = "imagenet"
    """The network's weights: `imagenet` (torchvision's, downloaded), `packaged` (of
    `efficientnet_lite0`, installed), `random`, or a file of torchvision's (`.pth`, `.safetensors`)
    or of Keras' VGG16 (`.h5`)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the `random` weights."""
    input_size: int = Field(default=224, ge=32, le=1024)
    """Side, in pixels, of the square images that the network is given."""
    preprocessing: Preprocessing | None = None
    """Preprocessing that the weights were trained with: `torchvision` (RGB, mean 0, deviation 1),
    `keras` (BGR, mean 0) or `lite` (RGB, about -1 to 1); null: `keras` for a Keras file (`.h5`),
    `lite` for `efficientnet_lite0`, else `torchvision`."""

    @model_validator(mode="before")
    @classmethod
    def _default_layer(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("network") == PACKAGED[0]:
            return {"layer": PACKAGED[1]} | given
        return given

    @model_validator(mode="after")
    def _fitting_weights(self) -> Self:
        packaged = self.network == PACKAGED[0]
        if self.weights == ("imagenet" if packaged else "packaged"):
            raise ValueError(
                f"weights {self.weights} are not those of {self.network}; "
                f"set weights to {'packaged' if packaged else 'imagenet'}"
            )
        return self

    @property
    def trained_with(self) -> Preprocessing:
        """The preprocessing, with null resolved."""
        if self.preprocessing is not None:
            return self.preprocessing
        if self.network == PACKAGED[0]:
            return "lite"
        return "keras" if Path(self.weights).suffix in KERAS_SUFFIXES else "torchvision"

    @property
    def layer_label(self) -> str:
        """A label of network and layer."""
        paper = (self.network, self.layer) == PAPER_LAYER
        return "VGG16 fc1" if paper else f"{self.network} {self.layer}"


class ValueSettings(Settings):
    """The image value that a section of the sweep file names."""

    section: ClassVar[str]
    """Name of the section, for errors."""
    by: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    """For `random`, `cluster` and `core_set`: seed of the values."""
    clusters: int = Field(default=10, ge=1)
    """For `cluster`: number of clusters, within each label."""
    table: str | None = None
    """For `by: table`: a CSV or Parquet file with a row for each image, found by `image_id`."""
    column: str | None = None
    """For `by: table`: the column that holds the values."""

    @model_validator(mode="after")
    def _table_and_column(self) -> Self:
        if self.by == "table" and not (self.table and self.column):
            raise ValueError("by: table needs `table`, a file, and `column`, its column of values")
        return self


class GroupSettings(ValueSettings):
    """The order of the images, and how it is cut into groups."""

    section = "groups"
    by: Annotated[str, choice(IMAGE_VALUES)] = "feature_count"
    """The value of an image: `feature_count` (the paper's), `jpeg_size`, `entropy`, `edge_density`,
    `centrality`, `gaussian`, `ppca`, `neighbour`, `cluster`, `core_set`, `random`, `table`, or a
    user-defined function as `module:function`."""
    method: Annotated[str, choice(GROUPINGS)] = "kmeans"
    """`kmeans` (the paper's), `quantile` (sizes as equal as ties allow), `balanced` (k-means
    with sizes bounded by `tolerance`), or a user-defined function as `module:function`."""
    k: int = Field(default=3, ge=1, le=64)
    """Number of groups."""
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    """For `balanced`: largest difference of a group's size from images / k, as a share of it."""


class SelectSettings(ValueSettings):
    """The images that are trained on: all, or a share of them by an image value."""

    section = "select"
    by: Annotated[str, choice((NONE, *IMAGE_VALUES))] = NONE
    """`none` (the paper's: all images), or any image value that `groups.by` can name: `gaussian`,
    `ppca` and `neighbour` select by density, `cluster` equal numbers from each cluster, `core_set`
    the k-centre greedy choice; `random` is the control."""
    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share of the images that is kept."""
    end: Literal["high", "low"] = "high"
    """The images that are kept: those with the `high` or with the `low` values."""
    within: Literal["label", "all"] = "label"
    """`label`: keep this share of each label, where images have one; `all`: of all images."""

    @property
    def label(self) -> str:
        """A description of the images that are kept; empty for all."""
        of = " of each label" if self.within == "label" else ""
        return "" if self.by == NONE else f"the {self.end}est {self.keep:.0%}{of} by {self.by}"
