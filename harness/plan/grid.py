"""The grid of a sweep: its cells, one for each run."""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from featgan.digests import short_hash
from featgan.features.settings import GROUPINGS, NONE
from featgan.staging.settings import CRITERION_NAMES
from featgan.staging.stages import Stage, plan
from harness.plan.claims import IGNORED
from harness.plan.settings import Grid, Method, Mode, Sweep

LONGEST_LABEL = 160
"""Bytes; a signature and a file's ending still fit into the 255 of a file system."""
CRITERION_SETTING = {"smoothed_peak": "window", "plateau": "window", "patience": "patience"}
"""The setting of `stages` that a built-in criterion reads."""


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a run before its data are known."""

    data: str
    mode: Mode
    seed: int
    method: Method
    axes: dict[str, Any] = field(default_factory=dict)
    """Values of the further axes by dotted key, without those that the run ignores."""

    @property
    def label(self) -> str:
        """`<data set>-<mode>-seed<n>[-<axis>…]`, safe as a file name."""
        axes = (f"-{key.rpartition('.')[2]}{_file_name(self.axes[key])}" for key in self.axes)
        label = f"{self.data}-{_file_name(self.mode)}-seed{self.seed}{''.join(axes)}"
        cut = label.encode()[:LONGEST_LABEL].decode(errors="ignore")
        return label if cut == label else f"{cut}-{short_hash(label)}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run."""
        method = self.method
        return plan(self.mode, method.groups.k, method.training.stage_epochs, method.stages.change)

    @property
    def functions(self) -> list[str]:
        """Names of the functions that a run calls, built-in ones and `module:function`."""
        method = self.method
        names = [self.mode, method.groups.method, method.gan.network, method.stages.criterion]
        return [*names, *method.score.metrics]

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as run records and `sweep.json` hold it."""
        return {"data": self.data, "mode": self.mode, "seed": self.seed} | self.axes


def expand(sweep: Sweep) -> list[Cell]:
    """Return the cells of all grids, each once, sorted by data set.

    Axes that a run ignores are left out, so that they do not repeat it: conventional training
    has no groups, and is the same for every way of grouping. Raises pydantic's ValidationError
    for a value that is invalid in a run.
    """
    cells = (cell for grid in sweep.grid for cell in _cells(sweep, grid))
    distinct = {json.dumps(cell.as_dict(), sort_keys=True): cell for cell in cells}
    return sorted(distinct.values(), key=lambda cell: [*sweep.data].index(cell.data))


def family(sweep: Sweep) -> list[str]:
    """Return the names of the tests: of each claim one for each data set and other axes.

    A test has seeds in common, and one that asks the same as another comes once.
    """
    patterns: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    seeds, tests = defaultdict[tuple[str, str], set[int]](set), dict[Any, str]()
    for cell in expand(sweep):
        key = json.dumps([cell.mode, cell.axes], sort_keys=True)
        patterns.setdefault(cell.data, {}).setdefault(key, (cell.mode, cell.axes))
        seeds[cell.data, key].add(cell.seed)
    for claim, (data, of) in itertools.product(sweep.claims, patterns.items()):
        for name, first, second in claim.tests(data, of):
            if seeds[data, first] & seeds[data, second]:
                tests.setdefault((claim.measure, data, frozenset((first, second))), name)
    return [*tests.values()]


def ignored_settings(mode: str, method: Method) -> set[str]:
    """Return dotted keys of the settings that a run of this mode and method does not read.

    A user-defined function may read every setting that it gets.
    """
    groups, stages = method.groups, method.stages
    keys = {*IGNORED.get(mode, ())}
    if groups.method in GROUPINGS and groups.method != "balanced":
        keys.add("groups.tolerance")
    if stages.criterion in CRITERION_NAMES:
        keys |= {"stages.window", "stages.patience"}
        keys.discard(f"stages.{CRITERION_SETTING.get(stages.criterion)}")
    if method.select.by == NONE:
        keys |= {f"select.{name}" for name in type(method.select).model_fields if name != "by"}
    if method.pacing.by == "none":
        keys |= {"pacing.first", "pacing.decay"}
    if method.pacing.grow == "none":
        keys |= {"pacing.a", "pacing.b", "pacing.order"}
    return keys


def _cells(sweep: Sweep, grid: Grid) -> Iterator[Cell]:
    for combination in itertools.product(*grid.axes.values()):
        values = dict(zip(grid.axes, combination, strict=True))
        settings = sweep.model_dump(include=set(Method.model_fields))
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            (settings[section] if section else settings)[name] = value
        method = Method.model_validate(settings)
        for mode in grid.mode:
            ignored = ignored_settings(mode, method)
            axes = {key: value for key, value in values.items() if key not in ignored}
            for data, seed in itertools.product(grid.data or sweep.data, grid.seeds):
                yield Cell(data, mode, seed, method, axes)


def _file_name(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", str(value)).strip("_")[:32]
