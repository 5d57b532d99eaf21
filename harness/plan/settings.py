"""Settings of a sweep file: keys, types, defaults, and rules that need no grid.

The sections are the settings classes of `featgan` and `harness.sources`. Code outside this
package sees these classes, and no dictionary of keys.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from featgan.features.settings import FeatureSettings, GroupSettings, SelectSettings
from featgan.gans.settings import GanSettings, check
from featgan.scores.settings import DEVIATIONS, ScoreSettings, reported
from featgan.settings import Settings, TrainingSettings
from featgan.staging.modes import MODES
from featgan.staging.settings import SCORE, PacingSettings, StageSettings
from featgan.user_code import choice
from harness.plan.claims import Claim, claims_among
from harness.sources import SourceSettings

FEWEST_SEEDS = 6
"""Fewest pairs of which a sign-flip test has a p under 0.05: 2 / 2^6."""
MOST_RUNS = 100_000
"""Largest grid; the records of this many runs are still read in minutes."""
FEATURES_FOLDER = "features"
"""Folder under `results` that holds feature tables and image packs."""


class Resources(Settings):
    """Limits on the machines; none of them changes a signature."""

    cpus_per_run: int = Field(1, ge=1)
    """CPU cores, and threads, of each run. A sum over more threads is rounded differently, so an
    interrupted run cannot continue with another number."""
    gpus_per_run: float | None = Field(None, ge=0, le=1)
    """Share of a GPU for each run, which is one process; null: 1 where the machines have GPUs, else
    0."""
    max_concurrent: int | None = Field(None, ge=1)
    """Largest number of runs at the same time; null: as many as fit."""
    feature_actors: int | None = Field(None, ge=1)
    """Processes that count features; null: two for each GPU, or one for each core."""
    max_failures: int = Field(1, ge=0)
    """Number of times a failed run is retried."""
    checkpoint_minutes: float = Field(5.0, ge=0)
    """Training time between two checkpoints of a run; 0: one at every evaluation."""


class Pilot(Settings):
    """Early stopping of runs that fall behind, to choose settings; not for results."""

    grace: int = Field(ge=1)
    """Epochs before a run may be stopped."""
    keep_one_in: int = Field(3, ge=2)
    """Reduction factor of ASHA (Li et al. 2020): at each rung one run in this many continues, and
    the next rung is this many times further."""


class Verdict(Settings):
    """The question of the sweep, and the difference worth knowing; nothing of it changes a run."""

    claims: list[str] | None = Field(None, min_length=1)
    """Claims that get a verdict, such as `conventional > descending in score`: two modes, `<` or
    `>`, and `score`, `kept_score`, `end_score`, `epochs_to_peak`, `outlines`, `colour`,
    `diversity` or `feature_count`. A mode may have settings that are axes of the grid, as in
    `ascending, groups.by=entropy > ascending, groups.by=feature_count in score`. Null: the paper's
    claims on modes of the grid. Fixed once a run has begun; a claim named later is exploratory."""
    difference: float | None = Field(None, gt=0)
    """A difference of fresh scores worth knowing; `--dry-run` prints how many seeds it takes."""
    power: float = Field(0.8, gt=0, lt=1)
    """Probability with which that difference, if it is true, is to be found."""
    sd_from: str | None = None
    """Folder of an earlier sweep, whose paired differences over seeds give the standard
    deviation; null: the runs of this sweep that are done."""


class Sections(Settings):
    """The sections of a sweep file that a run reads."""

    image_size: Literal[32, 64, 128, 256] = 128
    """Side of the images that are trained on and generated, in pixels."""
    features: FeatureSettings = FeatureSettings()
    """The network that counts features."""
    select: SelectSettings = SelectSettings()
    """The images that are trained on."""
    groups: GroupSettings = GroupSettings()
    """The order of the images, and their groups."""
    stages: StageSettings = StageSettings()
    """The sequence of stages."""
    pacing: PacingSettings = PacingSettings()
    """Weights of the images at the start of training."""
    gan: GanSettings = GanSettings()
    """The networks."""
    training: TrainingSettings = TrainingSettings()
    """The training of a run."""
    score: ScoreSettings = ScoreSettings()
    """The scores of generated images."""


class Method(Sections):
    """The settings of one run: everything that can change its result."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check(self.gan)
        epochs, every = self.training.stage_epochs, self.training.evaluate_every
        if epochs % every:
            raise ValueError(
                f"training.stage_epochs ({epochs}) must be a multiple of "
                f"training.evaluate_every ({every})"
            )
        known = [SCORE, *(n for n in reported(self.score.metrics) if n not in DEVIATIONS)]
        if self.stages.watch not in known:
            raise ValueError(
                f"stages.watch: {self.stages.watch!r} is no metric that is measured; "
                f"score.metrics has {', '.join(known[1:]) or 'nothing'}; or watch {SCORE!r}"
            )
        return self


Mode = Annotated[str, choice(MODES)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class UpTo(Settings):
    """Seeds 0, 1, 2, … that are added until every claim is decided."""

    up_to: int = Field(ge=FEWEST_SEEDS, le=1000)


class Grid(Settings):
    """The axes of a grid; any dotted key of the file, such as `groups.k`, can be an axis."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[Any], Field(min_length=1)]]

    mode: list[Mode] = Field(["descending", "ascending", "conventional"], min_length=1)
    """Modes: `descending`, `ascending`, `conventional`, `random`, `middle_out`, or
    `module:function`."""
    seed: Annotated[
        Annotated[list[Seed], Field(min_length=1), Tag("list")] | Annotated[UpTo, Tag("up_to")],
        Discriminator(lambda seed: "up_to" if isinstance(seed, dict | UpTo) else "list"),
    ] = Field([0, 1, 2])
    """Random seeds; runs that differ in their seed alone are repetitions. `{up_to: 30}`: seeds 0
    to 29, added for all patterns together until every claim of `verdict` is decided."""
    data: list[str] | None = Field(None, min_length=1)
    """Names of data sets; null: all in the file."""

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The values of the further axes, by dotted key."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds; of `up_to`, as many as there can be."""
        return range(self.seed.up_to) if isinstance(self.seed, UpTo) else self.seed

    @model_validator(mode="after")
    def _distinct_values(self) -> Self:
        for key, values in self.model_dump().items():
            texts = [json.dumps(value, sort_keys=True, default=str) for value in values or []]
            if len(set(texts)) < len(texts):
                raise ValueError(f"{key} lists a value twice")
        return self


Grids = Annotated[
    list[Grid], BeforeValidator(lambda grid: [grid] if isinstance(grid, dict | Grid) else grid)
]
DataName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=64)]


class Sweep(Sections):
    """A sweep file describes a grid of runs.

    It is YAML, and is checked as a whole before anything starts. For an unknown key, a wrong type
    or an impossible value the command prints one line with the file, the key and what would be
    right, and exits with code 2. `python harness/sweep.py FILE --dry-run` prints the file with all
    defaults.

    Paths are relative to the folder the command is started in. A key with dots, such as
    `groups.k`, can be an axis of the `grid`. A list of grids gives the cells of all of them.

    `module:function` names a user-defined function. Its module is in the folder the command is
    started in, or installed. Its source is part of the signature of the runs.

    The section `small` changes the file for `--scale small`: it is merged into the other sections
    key by key, replaces `data` and `grid`, and appends `-small` to the sweep's name.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64)]
    """Name of the sweep and of its folder under `results`."""
    results: str = Field("results", min_length=1)
    """Where everything is written: a folder, a shared mount, or `s3://`/`gs://`."""
    data: dict[DataName, SourceSettings] = Field(min_length=1)
    """The data sets by name."""
    grid: Grids = Field([Grid()], min_length=1)
    """The axes of the grid; or a list of grids, whose cells are joined."""
    max_rejected: float = Field(0.01, ge=0, le=1)
    """Share of a data set's images that may be unreadable before the sweep stops."""
    sample_every: int = Field(10, ge=1)
    """Evaluations between two sample grids in TensorBoard."""
    verdict: Verdict = Verdict()
    """The claims that the sweep decides on."""
    rescore: bool = True
    """Measure the finished runs once more, with fresh noise, as the last step; without it no
    claim about scores is decided."""
    pilot: Pilot | None = None
    """Stop runs early that fall behind; for conventional runs on one data set. Null: every run
    trains to its end."""
    resources: Resources = Resources()
    """Limits on the machines."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims that get a verdict: the family of the sweep's tests."""
        modes = {mode for grid in self.grid for mode in grid.mode}
        return claims_among(self.verdict.claims, modes)

    @property
    def up_to(self) -> int | None:
        """The largest number of seeds, where they are added until the claims are decided."""
        seed = self.grid[0].seed
        return seed.up_to if isinstance(seed, UpTo) else None

    @model_validator(mode="after")
    def _answerable_claims(self) -> Self:
        modes = dict.fromkeys(mode for grid in self.grid for mode in grid.mode)
        for text in self.verdict.claims or []:
            if not claims_among([text], modes.keys()):
                raise ValueError(
                    f"verdict.claims: {text!r} names a mode that the grid does not have; it has "
                    f"{', '.join(modes)}"
                )
        if len({grid.seed if isinstance(grid.seed, UpTo) else None for grid in self.grid}) > 1:
            raise ValueError("grid.seed: where one grid has `up_to`, each needs the same")
        if self.up_to and (self.pilot or not self.rescore):
            raise ValueError("grid.seed: `up_to` needs `rescore: true`, and no `pilot`")
        return self

    @model_validator(mode="after")
    def _known_data(self) -> Self:
        for name in (name for grid in self.grid for name in grid.data or []):
            if name not in self.data:
                raise ValueError(f"grid.data: there is no data set {name!r} in `data`")
        axes = ([g.data or self.data, g.mode, g.seeds, *g.axes.values()] for g in self.grid)
        runs = sum(math.prod(map(len, of_grid)) for of_grid in axes)
        if runs > MOST_RUNS:
            raise ValueError(f"grid: {runs:,} runs, more than {MOST_RUNS:,}: shorten its lists")
        if self.name == FEATURES_FOLDER:
            raise ValueError(f"name: {self.name!r} is the folder of feature tables; rename it")
        return self
