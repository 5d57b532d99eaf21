"""Settings of the scores, and the names of classifiers and metrics; needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featgan.settings import Precision, Settings
from featgan.user_code import choice

MANIFOLD_NEIGHBOURS = 3
"""Precision and recall use balls that reach the third neighbour (Kynkäänniemi et al. 2019)."""
DENSITY_NEIGHBOURS = 5
"""Density and coverage use balls that reach the fifth neighbour (Naeem et al. 2020)."""

KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000
"""KID is a mean over this many subsets of at most this many images (Bińkowski et al. 2018)."""


@dataclass(frozen=True)
class Metric:
    """Properties of a built-in metric; its function is in `featgan.scores.metrics.registry`."""

    numbers: tuple[str, ...]
    """Names under which its numbers are reported."""
    lower_is_better: bool = False
    fewest_real: int = 2
    """Fewest real images that it can be measured against."""
    how: str = ""
    """What its protocol adds to its name."""


METRICS = {
    "fid": Metric(("fid",), lower_is_better=True),
    "kid": Metric(
        ("kid", "kid_sd"), lower_is_better=True, how=f"-{KERNEL_SUBSETS}x{KERNEL_SUBSET_SIZE}"
    ),
    "precision_recall": Metric(
        ("precision", "recall"), fewest_real=MANIFOLD_NEIGHBOURS + 1, how=f"-k{MANIFOLD_NEIGHBOURS}"
    ),
    "density_coverage": Metric(
        ("density", "coverage"), fewest_real=DENSITY_NEIGHBOURS + 1, how=f"-k{DENSITY_NEIGHBOURS}"
    ),
    "cmmd": Metric(("cmmd",), lower_is_better=True),
    "authpct": Metric(("authpct",)),
}
"""Built-in values of `score.metrics`."""
DEVIATIONS = ("kid_sd",)
"""Reported numbers that are no metrics, but the standard deviation of one over subsets."""


class ScoreSettings(Settings):
    """The scores of generated images."""

    classifier: Literal["inception", "trained", "packaged"] = "inception"
    """The literature's Inception-v3, a small CNN that the sweep trains, or EfficientNet-Lite0 with
    ImageNet's 1,000 classes, which needs neither labels nor a download."""
    weights: str | None = None
    """File of the Inception-v3's weights; null: they are downloaded once."""
    trained_on: list[str] | None = Field(None, min_length=1)
    """Data sets whose labels train the classifier `trained`, which requires them."""
    count: int = Field(5000, ge=2)
    """Number of images generated for a score."""
    splits: int = Field(10, ge=1)
    """Number of parts of these images; the score is the mean over the parts."""
    precision: Precision = "fp32"
    """Number format of the classifier: `fp32`, `bf16`, or `auto`: bf16 where hardware has it."""
    batch_size: int = Field(50, ge=1)
    """Images generated and classified at a time."""
    metrics: list[Annotated[str, choice(METRICS)]] = Field([])
    """Further metrics to report, in the same pass: `fid`, `kid`, `precision_recall`,
    `density_coverage`, `cmmd` (with CLIP's features), `authpct`, or `module:function`."""
    features: Literal["classifier", "vgg16", "dinov2-vit-l-14", "clip-vit-l-14-336"] = "classifier"
    """Features that the metrics compare: those of the classifier; of VGG16's second fully
    connected layer, as published for precision, recall, density and coverage; of DINOv2, as in
    FD-DINOv2; or of CLIP, as in CMMD."""
    features_weights: str | None = None
    """File of the weights of that network; null: torchvision's or timm's, downloaded once."""

    def fresh_count(self, gpu: bool) -> int:
        """Return the number of images of a re-score: five evaluations' worth, 50,000 on a GPU."""
        return max(5 * self.count, 50_000 if gpu else 0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count < 2 * self.splits:
            raise ValueError(f"count {self.count} leaves {self.splits} splits under 2 images each")
        if "precision_recall" in self.metrics and self.count <= MANIFOLD_NEIGHBOURS:
            raise ValueError(
                f"metrics: precision_recall needs a count over {MANIFOLD_NEIGHBOURS}, "
                f"not {self.count}"
            )
        if self.weights is not None and self.classifier != "inception":
            raise ValueError(f"weights are those of inception; {self.classifier} has its own")
        if self.features != "classifier" and not self.metrics:
            raise ValueError("features are those of metrics: name some in metrics, such as [fid]")
        if self.features_weights is not None and self.features == "classifier":
            raise ValueError("features_weights belongs to features other than the classifier's")
        if "cmmd" in self.metrics and self.features != (clip := "clip-vit-l-14-336"):
            raise ValueError(f"metrics: cmmd is defined for features: {clip}, not {self.features}")
        if self.trained_on is not None and self.classifier != "trained":
            raise ValueError("trained_on belongs to the classifier trained")
        names = reported(self.metrics)
        taken = {"score", *reported([*METRICS])}
        if len({*names}) < len(names) or taken & {*reported([m for m in self.metrics if ":" in m])}:
            raise ValueError(
                "metrics: two of these numbers, or a user-defined and a built-in one, have the "
                f"same name: {', '.join(names)}"
            )
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Files of weights that the settings name."""
        return tuple(file for file in (self.weights, self.features_weights) if file)


def reported(metrics: Sequence[str]) -> list[str]:
    """Return the names of the numbers that `metrics` report.

    A user-defined `module:function` reports one number, `function`.
    """
    return [
        name
        for metric in metrics
        for name in (METRICS[metric].numbers if metric in METRICS else (metric.partition(":")[2],))
    ]


def lower_is_better(number: str) -> bool:
    """Return whether a reported number is better when lower; user-defined ones never are."""
    return any(number in metric.numbers and metric.lower_is_better for metric in METRICS.values())
