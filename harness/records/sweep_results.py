"""What a sweep has written so far, read back: run records, groups, data records, samples.

Judges no result; a file that cannot be read, or is another sweep's, is named, not skipped in
silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from featgan.errors import UserError
from harness.records import consistency
from harness.records.run_record import RunRecord
from harness.records.sweep_records import (
    DataRecord,
    GroupsRecord,
    RealRecord,
    RealScore,
    Rescored,
    SweepRecord,
)
from harness.storage.sealed import is_of_other_format

Cell = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)

PAPER_MODES = ("descending", "ascending", "conventional")
"""The order of the paper's tables; further modes follow in the order of the sweep."""


@dataclass(frozen=True)
class Pattern:
    """The runs that differ in their seed alone, in the order of their seeds."""

    data: str
    mode: str
    axes: tuple[tuple[str, Any], ...]
    """Further axes of the grid by dotted key, such as `("groups.k", 4)`."""
    protocol: str
    runs: tuple[RunRecord, ...]
    planned: int
    """How many seeds the sweep asks for."""

    @property
    def finished(self) -> list[RunRecord]:
        """The runs that count in means and in best of n."""
        ended = (run for run in self.runs if run.status == "finished")
        # older versions wrote "finished" where the watched value was never a number
        return [run for run in ended if None not in (run.best_score, run.final_score)]

    @property
    def representative(self) -> RunRecord | None:
        """Best of n: the finished run with the highest best score; the first of equals."""
        return max(self.finished, key=lambda run: run.best_score or 0.0, default=None)

    @property
    def label(self) -> str:
        """The mode and the further axes, for legends."""
        return ", ".join([self.mode, *(f"{key}={value}" for key, value in self.axes)])


@dataclass(frozen=True)
class Outcome:
    """Everything below one sweep's folder that tables and figures are made from."""

    folder: Path
    name: str
    cells: list[Cell]
    """The runs the sweep asks for; of a folder without `sweep.json`, those that are there."""
    notes: list[str]
    runs: list[RunRecord]
    data: dict[str, DataRecord]
    """By the name of their file: that of the data set, and of its variant where there are several.
    """
    groups: dict[str, GroupsRecord]
    """By the name of their file."""
    rescored: dict[str, Rescored] = field(default_factory=dict)
    """What was measured again with fresh noise, by run."""
    real: dict[str, RealRecord] = field(default_factory=dict)
    """The same measurements of real images, by the name of the data record."""
    ceilings: list[RealScore] = field(default_factory=list)
    """Scores of real images, one for each data set and score protocol."""
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, expected: list[Cell] | None = None) -> Outcome:
        """Read a sweep's folder, finished or not; a UserError where there is none."""
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of a sweep")
        problems: list[str] = []
        path = folder / "sweep.json"
        plan = _parsed(path, SweepRecord, problems) if path.is_file() else None
        runs = _latest(
            [
                run
                for path in sorted(folder.glob("runs/*/run.json"))
                if (run := _run(path, problems)) is not None
            ],
            plan.runs if plan else None,
            problems,
        )
        data = _all(
            *(folder / "data", DataRecord, problems),
            lambda record, every: consistency.other_than_the_runs(record, every, runs),
        )
        groups = _all(
            *(folder / "groups", GroupsRecord, problems),
            lambda record, _: consistency.other_than_counted(record, data),
        )
        rescored = {}
        for run in runs:
            path = folder / "runs" / run.run / "rescored.json"
            if not path.is_file() or (again := _parsed(path, Rescored, problems)) is None:
                continue
            if run.generator_sha256 not in (None, again.generator_sha256):
                problems.append(f"{path}: left out: measured of another generator than the run's")
                continue
            rescored[run.run] = again
        real = _all(
            *(folder / "real", RealRecord, problems),
            lambda record, _: consistency.other_than_measured(record, data),
        )
        ceilings = _all(
            *(folder / "ceilings", RealScore, problems),
            lambda record, _: consistency.other_than_measured(record, data),
        )
        problems += _failed_starts(folder, plan.runs if plan else None)
        cells = expected if expected is not None else plan.cells if plan else None
        if not runs and not cells and not groups:
            raise UserError(f"{folder}: holds no runs; give the folder of a sweep")
        return cls(
            folder=folder,
            name=plan.name if plan else folder.resolve().name,
            cells=cells if cells is not None else [run.cell for run in runs],
            notes=plan.notes if plan else [],
            runs=runs,
            data=data,
            groups=groups,
            rescored=rescored,
            real={record.name: record for record in real.values()},
            ceilings=[*ceilings.values()],
            problems=problems,
        )

    @cached_property
    def data_sets(self) -> list[str]:
        """Names in the order of the sweep."""
        known = [cell["data"] for cell in [*self.cells, *(run.cell for run in self.runs)]]
        return list(dict.fromkeys([*known, *(record.data for record in self.groups.values())]))

    @cached_property
    def count_groups(self) -> list[GroupsRecord]:
        """The groups that were made by feature counts, not by another value."""
        return [record for record in self.groups.values() if record.by == "feature_count"]

    @cached_property
    def modes(self) -> list[str]:
        """The paper's modes in the paper's order, then the others."""
        known = dict.fromkeys(cell["mode"] for cell in [*self.cells, *(r.cell for r in self.runs)])
        return [m for m in PAPER_MODES if m in known] + [m for m in known if m not in PAPER_MODES]

    @cached_property
    def missing(self) -> list[Cell]:
        """Cells of the grid that have no run record yet."""
        there = {_key(run.cell) for run in self.runs}
        return [cell for cell in self.cells if _key(cell) not in there]

    def not_begun(self, data: str) -> set[str]:
        """Modes of a data set of which no run has a record yet."""
        begun = {run.cell["mode"] for run in self.runs if run.cell["data"] == data}
        return {cell["mode"] for cell in self.cells if cell["data"] == data} - begun

    @cached_property
    def patterns(self) -> list[Pattern]:
        """The runs by data set, mode, further axes and score protocol; scores never mix those."""
        found: dict[tuple[str, str], list[RunRecord]] = {}
        for run in sorted(self.runs, key=lambda run: run.cell["seed"]):
            found.setdefault((_pattern(run.cell), run.score_protocol), []).append(run)
        planned = [_pattern(cell) for cell in self.cells]
        patterns = [
            Pattern(
                data=runs[0].cell["data"],
                mode=runs[0].cell["mode"],
                axes=_axes(runs[0].cell),
                protocol=protocol,
                runs=tuple(runs),
                planned=max(planned.count(key), len(runs)),
            )
            for (key, protocol), runs in found.items()
        ]
        axes = list(dict.fromkeys(_axes(cell) for cell in [r.cell for r in self.runs]))
        return sorted(
            patterns,
            key=lambda p: (
                self.data_sets.index(p.data),
                p.protocol,
                axes.index(p.axes),
                self.modes.index(p.mode),
            ),
        )

    def blocks(self) -> list[tuple[str, str, list[Pattern]]]:
        """The patterns by data set and score protocol: what may stand in one table."""
        pairs = dict.fromkeys((p.data, p.protocol) for p in self.patterns)
        return [
            (d, s, [p for p in self.patterns if (p.data, p.protocol) == (d, s)]) for d, s in pairs
        ]

    def suffix(self, data: str, protocol: str) -> str:
        """Tells the files of one data set under several score protocols apart."""
        same = [other for name, other, _ in self.blocks() if name == data]
        return f"-protocol{same.index(protocol) + 1}" if len(same) > 1 else ""

    def ceiling(self, data: str, protocol: str) -> RealScore | None:
        """The score of the real images; None where the grid has several, of several sizes."""
        found = [r for r in self.ceilings if (r.name, r.protocol) == (data, protocol)]
        return found[0] if len({r.score for r in found}) == 1 else None

    def variant(self, run: RunRecord) -> str:
        """The name in `data` of the run's data set, as its images were made and counted."""
        same = (name for name, record in self.data.items() if record.key == run.data_key)
        return next(same, run.cell["data"]) if run.data_key else str(run.cell["data"])

    def run_folder(self, run: RunRecord) -> Path:
        """Where a run keeps its files."""
        return self.folder / "runs" / run.run


def cell_name(cell: Cell) -> str:
    """A cell as people name it: `apples-descending-seed0`, further axes appended."""
    axes = "".join(f"-{key}={value}" for key, value in _axes(cell))
    return f"{cell['data']}-{cell['mode']}-seed{cell['seed']}{axes}"


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A tree of settings by dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def spelled(value: Any) -> Any:
    """A setting as axes are compared and shown: numbers and text as they are, lists as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _axes(cell: Cell) -> tuple[tuple[str, Any], ...]:
    extra = ((key, cell[key]) for key in cell if key not in ("data", "mode", "seed"))
    return tuple((key, spelled(value)) for key, value in extra)


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


def _pattern(cell: Cell) -> str:
    return _key({key: value for key, value in cell.items() if key != "seed"})


def _latest(
    runs: list[RunRecord], wanted: list[str] | None, problems: list[str]
) -> list[RunRecord]:
    """The sweep's own runs; without a list of them, the last written of each cell."""
    if wanted is None:
        by_cell = {_key(run.cell): run for run in sorted(runs, key=lambda run: run.updated)}
        wanted = [run.run for run in by_cell.values()]
    names = set(wanted)
    keep = [run for run in runs if run.run in names]
    left = [run.run for run in runs if run.run not in names]
    if left:
        problems.append(f"left out, of other settings than the sweep's: {', '.join(left)}")
    return keep


def _failed_starts(folder: Path, wanted: list[str] | None) -> list[str]:
    """A sentence for each run that failed before it could write a record: its last failure.

    Runs that are no longer asked for are passed over.
    """
    return [
        f"{log.parent.name} failed before its training began: {_last_line(log)}"
        for log in sorted(folder.glob("runs/*/failures.txt"))
        if not log.with_name("run.json").exists() and (wanted is None or log.parent.name in wanted)
    ]


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        lines = [f"its log cannot be read: {error.strerror}"]
    return lines[-1] if lines else "no reason given"


def _run(path: Path, problems: list[str]) -> RunRecord | None:
    """A run's record, which must be that of the folder it lies in."""
    record = _parsed(path, RunRecord, problems)
    if record is not None and record.run != path.parent.name:
        problems.append(f"{path}: left out: the record of another run, {record.run}")
        return None
    return record


def _all(
    folder: Path,
    model: type[Model],
    problems: list[str],
    misfit: Callable[[Model, dict[str, Model]], str | None],
) -> dict[str, Model]:
    """The files of a folder by their names, without those that do not fit to the sweep's others."""
    paths = {path.stem: path for path in sorted(folder.glob("*.json"))}
    read = {name: _parsed(path, model, problems) for name, path in paths.items()}
    found = {name: record for name, record in read.items() if record is not None}
    wrong = {name: misfit(record, found) for name, record in found.items()}
    problems += [f"{paths[name]}: left out: {why}" for name, why in wrong.items() if why]
    return {name: record for name, record in found.items() if not wrong[name]}


def _parsed(path: Path, model: type[Model], problems: list[str]) -> Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        if is_of_other_format(error):
            message = "another version of featgan wrote it"
        problems.append(f"{path}: cannot be read: {where}: {message}")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    return None
