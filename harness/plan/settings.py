"""The sweep file: its schema, defaults and validation, and the grid of runs it expands to.

The sections are the settings classes of `featgan` and of this package's rooms; nothing past
this module sees a dictionary of unknown keys.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from featgan.errors import UserError
from featgan.features.settings import FeatureSettings, GroupSettings
from featgan.gans.settings import GanSettings
from featgan.scores.settings import ScoreSettings, reported
from featgan.settings import Settings, TrainingSettings
from featgan.staging.settings import MODE_NAMES, SCORE, PacingSettings, StageSettings
from featgan.staging.stages import Stage, plan
from featgan.user_code import choice
from harness.plan.signature import short_hash, signature, unread
from harness.plan.yaml_file import explain, nearest, parse
from harness.sources.base import SourceSettings
from harness.storage.redaction import redacted

MOST_RUNS = 100_000
"""A larger grid is taken for a mistake: the records of so many runs are still read in minutes."""
LONGEST_LABEL = 160
"""Characters; with the signature and what runs keep, a file system's 255 are not reached."""
NAMED_BY_FILE = "sweep"
WHOLE = ("data", "grid")
"""Sections that a `small` form replaces."""
FEATURES_FOLDER = "features"
"""Beside the sweeps' folders under `results`: feature tables and image packs."""


class Resources(Settings):
    """What the sweep may take of the machines; none of it is in a signature."""

    cpus_per_run: int = Field(1, ge=1)
    """CPU cores, and threads, of each run. Sums over more threads end in other last bits: a run
    half done is not continued with another number."""
    gpus_per_run: float | None = Field(None, ge=0)
    """GPUs of each run, fractions included; null: 1 where the machines have GPUs, else 0."""
    max_concurrent: int | None = Field(None, ge=1)
    """Most runs at once; null: as many as fit."""
    feature_actors: int | None = Field(None, ge=1)
    """Processes that count features; null: two a GPU, or one a core."""
    max_failures: int = Field(1, ge=0)
    """How often a failed run is tried again."""
    checkpoint_minutes: float = Field(5.0, ge=0)
    """Training time between two checkpoints of a run; 0: one at every evaluation."""


class Pilot(Settings):
    """Early stopping of hopeless runs, to find settings; never for results."""

    grace: int = Field(ge=1)
    """Epochs that every run gets."""
    keep_one_in: int = Field(3, ge=2)
    """At each rung one run in so many goes on, and the next rung is so many times further (ASHA,
    Li et al. 2020)."""


class Method(Settings):
    """The settings of one run: everything that can change its result."""

    image_size: Literal[32, 64, 128, 256] = 128
    """Side of the images that are trained on and generated, in pixels."""
    features: FeatureSettings = FeatureSettings()
    """How features are counted."""
    groups: GroupSettings = GroupSettings()
    """How counts are cut into groups."""
    stages: StageSettings = StageSettings()
    """How stages follow each other."""
    pacing: PacingSettings = PacingSettings()
    """Whether images of one end of the order count for more at first."""
    gan: GanSettings = GanSettings()
    """The networks."""
    training: TrainingSettings = TrainingSettings()
    """How a run trains."""
    score: ScoreSettings = ScoreSettings()
    """How generated images are scored."""

    @model_validator(mode="after")
    def _whole_evaluations(self) -> Method:
        if type(self) is not Method:  # of a sweep, whose axes may still change either
            return self
        epochs, every = self.training.stage_epochs, self.training.evaluate_every
        if epochs % every:
            raise ValueError(
                f"training.stage_epochs ({epochs}) must be a multiple of "
                f"training.evaluate_every ({every})"
            )
        return self

    @model_validator(mode="after")
    def _watched_is_measured(self) -> Method:
        if type(self) is not Method:
            return self
        known = [SCORE, *reported(self.score.metrics)]
        if self.stages.watch not in known:
            raise ValueError(
                f"stages.watch: {self.stages.watch!r} is not measured; score.metrics reports "
                f"{', '.join(known[1:]) or 'nothing'}; or watch {SCORE!r}"
            )
        return self


Mode = Annotated[str, choice(MODE_NAMES)]


class Grid(Settings):
    """The axes of a grid; any dotted key of the file, such as `groups.k`, is one more."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[Any], Field(min_length=1)]]

    mode: list[Mode] = Field(["descending", "ascending", "conventional"], min_length=1)
    """Modes: `descending`, `ascending`, `conventional`, `random`, `middle_out`, or
    `module:function`."""
    seed: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([0, 1, 2], min_length=1)
    """Seeds: runs that differ in nothing else are tried again."""
    data: list[str] | None = Field(None, min_length=1)
    """Names of data sets; null: all in the file."""

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The further axes by dotted key."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def cells(self) -> int:
        """Cells of each data set."""
        return math.prod([len(self.mode), len(self.seed), *map(len, self.axes.values())])

    @model_validator(mode="after")
    def _no_value_twice(self) -> Grid:
        for key, values in self.model_dump().items():
            spelled = [json.dumps(value, sort_keys=True, default=str) for value in values or []]
            if len(set(spelled)) < len(spelled):
                raise ValueError(f"{key} lists a value twice")
        return self


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]*$", max_length=64)]


class Sweep(Method):
    """A sweep file: a grid of runs."""

    name: Annotated[
        str,
        Field(title=NAMED_BY_FILE, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64),
    ]
    """Name of the sweep and of its folder under `results`."""
    results: str = Field("results", min_length=1)
    """Where everything is written: a folder, a shared mount, or `s3://`/`gs://`."""
    data: dict[Name, SourceSettings] = Field(min_length=1)
    """The data sets by name."""
    grid: Annotated[list[Grid], BeforeValidator(lambda grid: _listed(grid))] = Field(
        [Grid()], min_length=1
    )
    """The axes of the grid; or a list of grids, whose cells are put together."""
    max_rejected: float = Field(0.01, ge=0, le=1)
    """Share of a data set's images that may be unreadable before the sweep stops."""
    sample_every: int = Field(10, ge=1)
    """Evaluations between two sample grids in TensorBoard."""
    pilot: Pilot | None = None
    """Stop hopeless runs early; for conventional runs on one data set. Null: every run ends."""
    resources: Resources = Resources()
    """What the sweep may take of the machines."""

    @model_validator(mode="after")
    def _pilots_compare_like_with_like(self) -> Sweep:
        if self.pilot is None:
            return self
        modes = {mode for grid in self.grid for mode in grid.mode}
        data = {name for grid in self.grid for name in grid.data or self.data}
        scored = any(key.startswith("score.") for grid in self.grid for key in grid.axes)
        if modes != {"conventional"} or len(data) > 1 or scored:
            raise ValueError(
                "pilot: stops runs by comparing their scores, so the grid must hold conventional "
                "runs of one data set and one score alone"
            )
        return self

    @model_validator(mode="after")
    def _known_data(self) -> Sweep:
        asked = [("grid.data", grid.data) for grid in self.grid]
        for key, names in [*asked, ("score.trained_on", self.score.trained_on)]:
            for name in names or []:
                if name not in self.data:
                    raise ValueError(f"{key}: there is no data set {name!r} in `data`")
        if self.score.classifier == "trained" and not self.score.trained_on:
            raise ValueError(
                "score.trained_on: name the data sets whose labels train the classifier"
            )
        runs = sum(grid.cells * len(grid.data or self.data) for grid in self.grid)
        if runs > MOST_RUNS:
            raise ValueError(f"grid: {runs:,} runs, more than {MOST_RUNS:,}: shorten its lists")
        if self.name == FEATURES_FOLDER:
            raise ValueError(f"name: {self.name!r} is where feature tables are kept")
        return self

    def cells(self) -> list[Cell]:
        """The cells of all grids, each once and with its settings; data sets vary slowest.

        A cell has no axis that its run does not look at: conventional training has no groups
        to be cut one way or the other, and is not repeated for each.
        """
        cells = [cell for grid in self.grid for cell in self._cells(grid)]
        once = {json.dumps(cell.as_dict(), sort_keys=True): cell for cell in cells}
        return sorted(once.values(), key=lambda cell: [*self.data].index(cell.data))

    def _cells(self, grid: Grid) -> list[Cell]:
        methods = [
            (values, self._method(values))
            for combination in itertools.product(*grid.axes.values())
            for values in [dict(zip(grid.axes, combination, strict=True))]
        ]
        told = {
            (mode, position): {
                key: value for key, value in values.items() if key not in unread(mode, method)
            }
            for position, (values, method) in enumerate(methods)
            for mode in grid.mode
        }
        return [
            Cell(data, mode, seed, method, told[mode, position])
            for data in grid.data or self.data
            for position, (_, method) in enumerate(methods)
            for mode in grid.mode
            for seed in grid.seed
        ]

    def _method(self, values: dict[str, Any]) -> Method:
        """The settings of a run, with the values of dotted keys replaced."""
        settings = self.model_dump(include=set(Method.model_fields))
        for key, value in values.items():
            *sections, name = key.split(".")
            target = settings
            for section in sections:
                target = target[section]
            target[name] = value
        return Method.model_validate(settings)


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a run before its data are known."""

    data: str
    mode: Mode
    seed: int
    method: Method
    axes: dict[str, Any] = field(default_factory=dict)
    """Values of the further axes by dotted key."""

    @property
    def label(self) -> str:
        """`<data set>-<mode>-seed<n>[-<axis>…]`, safe as a file name."""
        parts = [self.data, _safe(self.mode), f"seed{self.seed}"]
        parts += [f"{key.rpartition('.')[2]}{_safe(value)}" for key, value in self.axes.items()]
        label = "-".join(parts)
        if len(label) <= LONGEST_LABEL:
            return label
        return f"{label[:LONGEST_LABEL]}-{short_hash(label)}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run."""
        method = self.method
        return plan(self.mode, method.groups.k, method.training.stage_epochs, method.stages.change)

    def as_dict(self) -> dict[str, Any]:
        """The cell as run records and `sweep.json` spell it."""
        return {"data": self.data, "mode": self.mode, "seed": self.seed} | self.axes

    @property
    def named(self) -> list[str]:
        """What the sweep file may name a function of the user's own for."""
        method = self.method
        names = [self.mode, method.groups.method, method.gan.network, method.stages.criterion]
        return [*names, *method.score.metrics]

    def signature(
        self, data_digest: str, classifier_digest: str | None, values_digest: str | None = None
    ) -> str:
        """Hash of all that can change the result, and of nothing else (`harness/signature.py`)."""
        return signature(
            self.mode,
            self.seed,
            self.method,
            self.named,
            data_digest,
            classifier_digest,
            values_digest,
        )


Scale = Literal["full", "small"]


def load(path: Path | str, scale: Scale = "full") -> Sweep:
    """The sweep of a file, or its `small` form.

    Raises UserError naming file, key, what is wrong and what is right.
    """
    content = parse(Path(path))
    content.setdefault("name", Path(path).stem)
    small = content.pop("small", None)
    if scale == "small":
        content = _scaled(content, small, path)
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, content, Sweep)}") from None
    keys = dotted_keys(Method)
    for key in (key for grid in sweep.grid for key in grid.axes):
        if key not in keys:
            raise UserError(f"{path}: grid.{redacted(key)[:60]}: unknown key{nearest(key, keys)}")
    try:
        cells = sweep.cells()
    except ValidationError as error:
        raise UserError(f"{path}: grid: {explain(error, None, Method)}") from None
    for cell in cells:
        for name in cell.method.score.trained_on or []:
            if name not in sweep.data:
                raise UserError(f"{path}: grid: score.trained_on: there is no data set {name!r}")
        if cell.method.score.classifier == "trained" and not cell.method.score.trained_on:
            raise UserError(f"{path}: grid: score.trained_on: name data sets with labels")
    shortest = min(stage.epochs for cell in cells for stage in cell.stages) if sweep.pilot else 0
    if sweep.pilot and sweep.pilot.grace >= shortest:
        raise UserError(
            f"{path}: pilot.grace: no run of {shortest} epochs can be stopped after "
            f"{sweep.pilot.grace}; lower it"
        )
    return sweep


def _listed(grid: Any) -> Any:
    return [grid] if isinstance(grid, dict | Grid) else grid


def _scaled(content: dict[str, Any], small: Any, path: Path | str) -> dict[str, Any]:
    """A file's content with what its `small` section puts in place.

    Sections of settings are merged key by key; `data` and `grid` are replaced.
    """
    if not isinstance(small, dict):
        raise UserError(f"{path}: --scale small: the file has no section `small` to say how")
    merged, name = dict(content), content["name"]
    if isinstance(name, str) and name:  # else the model refuses it, as in the full form
        merged["name"] = f"{name}-small"
    for key, value in small.items():
        before = content.get(key)
        together = key not in WHOLE and isinstance(before, dict) and isinstance(value, dict)
        merged[key] = before | value if together else value
    return merged


def dotted_keys(model: type[Settings], prefix: str = "") -> list[str]:
    """Every key that holds a value, sections written with dots."""
    keys = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            keys += dotted_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _safe(value: Any) -> str:
    """An axis' value as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", redacted(str(value))).strip("_")[:32]
