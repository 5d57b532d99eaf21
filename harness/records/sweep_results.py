"""The results of one sweep so far, read from its folder into one table of runs.

A file that cannot be read, or that belongs to other runs, is left out and named in `problems`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from featgan.errors import UserError
from featgan.scores.image_quality import Qualities
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
Axes = tuple[tuple[str, Any], ...]
"""Further axes of the grid by dotted key, such as `(("groups.k", 4),)`."""
Model = TypeVar("Model", bound=BaseModel)

PAPER_MODES = ("descending", "ascending", "conventional")
"""The order of the paper's tables; further modes follow in the order of the sweep."""
QUALITIES = tuple(field.name for field in fields(Qualities) if field.name != "images")
_NUMBERS = (
    *("final_score", "best_score", "epochs_to_peak", "epochs_spent", "fresh_score"),
    *(*QUALITIES, "feature_count", "feature_count_sd"),
)
"""Columns of the frame that hold numbers; a missing one is NaN."""
_COLUMNS = (
    *("data", "mode", "seed", "axes", "protocol", "status", "pattern", "label"),
    *("record", "rescored", *_NUMBERS),
)


@dataclass(frozen=True)
class Block:
    """The runs of one data set under one score protocol: what may stand in one table."""

    data: str
    protocol: str
    suffix: str
    """Ending of the tables' keys where the data set has runs of several protocols."""
    runs: pd.DataFrame
    """The rows of `SweepResults.frame`."""
    ceiling: RealScore | None
    """The score of the real images; None where the grid has several, of several sizes."""

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The runs that count in means and in best of n."""
        return self.runs[self.runs["counts"]]

    @cached_property
    def patterns(self) -> pd.DataFrame:
        """The first run of each pattern, by `pattern`, in the order of the tables."""
        return self.runs.drop_duplicates("pattern").set_index("pattern")

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best of n of each pattern that has a finished run, by `pattern`."""
        return self.runs[self.runs["best"]].set_index("pattern")

    def by_axes(self) -> Iterator[tuple[Axes, pd.DataFrame]]:
        """Yield the runs by their further axes."""
        for axes, runs in self.runs.groupby("axes", sort=False):
            yield cast(Axes, axes), runs

    def by_seed(self, column: str) -> pd.DataFrame:
        """Return a column of the finished runs as [pattern, seed]; NaN where there is none."""
        return self.finished.pivot(index="pattern", columns="seed", values=column)

    def paired(self, column: str, a: str, b: str) -> np.ndarray:
        """Return values [2, seeds] of two patterns, over the seeds for which both have one."""
        return self.by_seed(column).reindex([a, b]).dropna(axis=1).to_numpy()


@dataclass(frozen=True)
class SweepResults:
    """Everything below one sweep's folder that tables and figures are made from."""

    folder: Path
    name: str
    cells: list[Cell]
    """The runs the sweep asks for; without `sweep.json`, those that are there."""
    notes: list[str]
    runs: list[RunRecord]
    data: dict[str, DataRecord]
    """Data records by the names of their files: data sets, or variants of them."""
    groups: dict[str, GroupsRecord]
    """Groups by the names of their files."""
    rescored: dict[str, Rescored]
    """Measurements with fresh noise, by run."""
    real: dict[str, RealRecord]
    """The same measurements of real images, by the name of the data record."""
    ceilings: list[RealScore]
    """Scores of real images, one for each data set and score protocol."""
    problems: list[str]

    @classmethod
    def read(cls, folder: Path) -> SweepResults:
        """Read a sweep's folder, finished or not; raise UserError where there is none."""
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of a sweep")
        problems: list[str] = []
        path = folder / "sweep.json"
        plan = _parsed(path, SweepRecord, problems) if path.is_file() else None
        runs = _runs(folder, plan.runs if plan else None, problems)
        groups = _read_all(folder / "groups", GroupsRecord, problems)
        if not runs and not groups and not (plan and plan.cells):
            raise UserError(f"{folder}: holds no runs; give the folder of a sweep")
        rescored = {}
        for run in runs:
            path = folder / "runs" / run.run / "rescored.json"
            again = _parsed(path, Rescored, problems) if path.is_file() else None
            if again and run.generator_sha256 not in (None, again.generator_sha256):
                problems.append(f"{path}: left out: measured of another generator than the run's")
            elif again:
                rescored[run.run] = again
        data = _read_all(folder / "data", DataRecord, problems)
        real = {}
        for record in _read_all(folder / "real", RealRecord, problems).values():
            if record.name in data and record.digest != data[record.name].digest:
                problems.append(
                    f"{folder}/real/{record.name}.json: left out: measured of other images than "
                    "the sweep's; run results.py with --rescore"
                )
            else:
                real[record.name] = record
        return cls(
            folder=folder,
            name=plan.name if plan else folder.resolve().name,
            cells=plan.cells if plan else [run.cell for run in runs],
            notes=plan.notes if plan else [],
            runs=runs,
            data=data,
            groups=groups,
            rescored=rescored,
            real=real,
            ceilings=[*_read_all(folder / "ceilings", RealScore, problems).values()],
            problems=problems,
        )

    @cached_property
    def data_sets(self) -> list[str]:
        """Names of the data sets in the order of the sweep."""
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
        begun = {_key(run.cell) for run in self.runs}
        return [cell for cell in self.cells if _key(cell) not in begun]

    def not_begun(self, data: str) -> set[str]:
        """Return the modes of a data set of which no run has a record yet."""
        begun = {run.cell["mode"] for run in self.runs if run.cell["data"] == data}
        return {cell["mode"] for cell in self.cells if cell["data"] == data} - begun

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a run, in the order of the tables: data set, protocol, axes, mode, seed.

        | column | |
        |---|---|
        | data, mode, seed, axes | its cell; `axes` is a tuple of (dotted key, value) |
        | protocol, status | as in its record |
        | pattern, label | JSON of the cell without its seed; mode and axes for people |
        | planned | how many seeds the sweep asks for |
        | final_score, best_score, epochs_to_peak, epochs_spent | as in its record |
        | counts | True if finished with scores, and so part of means and best of n |
        | best | True if its pattern's best of n: the first of the highest best scores |
        | fresh_score | mean of its fresh scores, if they are of its protocol |
        | sharpness, ..., feature_count, feature_count_sd | of its generated images |
        | record, rescored | the RunRecord, and the Rescored or None |
        """
        rows = [self._row(run) for run in self.runs]
        frame = pd.DataFrame(rows, columns=_COLUMNS, dtype=object)
        frame = frame.astype(dict.fromkeys(_NUMBERS, float))
        axes = {axes: number for number, axes in enumerate(dict.fromkeys(frame["axes"]))}
        order: dict[Any, Callable[..., Any]] = {"data": self.data_sets.index, "axes": axes.get}
        order["mode"] = self.modes.index
        frame = frame.sort_values(
            ["data", "protocol", "axes", "mode", "seed"],
            key=lambda column: column.map(order[column.name]) if column.name in order else column,
            ignore_index=True,
        )
        planned = pd.Series([_key(cell, without="seed") for cell in self.cells]).value_counts()
        begun = frame.groupby(["pattern", "protocol"])["seed"].transform("size")
        frame["planned"] = np.maximum(frame["pattern"].map(planned).fillna(0).astype(int), begun)
        scored = np.isfinite(frame[["final_score", "best_score"]].to_numpy()).all(axis=1)
        frame["counts"] = (frame["status"] == "finished") & scored
        counting = frame[frame["counts"]].groupby(["pattern", "protocol"])["best_score"]
        frame["best"] = frame.index.isin(counting.idxmax())
        return frame

    def _row(self, run: RunRecord) -> dict[str, Any]:
        """Return what `frame` takes from one run alone."""
        again, axes = self.rescored.get(run.run), _axes(run.cell)
        row = {key: run.cell[key] for key in ("data", "mode", "seed")} | dict(run)
        row |= {"axes": axes, "record": run, "rescored": again}
        row["protocol"] = run.score_protocol
        row["pattern"] = _key(run.cell, without="seed")
        row["label"] = ", ".join([run.cell["mode"], *(f"{key}={value}" for key, value in axes)])
        if again:
            row |= vars(again.qualities)
            if again.fresh_scores and again.same_protocol == run.score_protocol:
                row["fresh_score"] = np.mean(again.fresh_scores)
            if counts := again.feature_counts:
                row |= {"feature_count": counts.mean, "feature_count_sd": counts.sd}
        return row

    def blocks(self) -> Iterator[Block]:
        """Yield the runs by data set and score protocol; scores of two protocols never mix."""
        for data, of_data in self.frame.groupby("data", sort=False):
            protocols = list(of_data["protocol"].unique())
            for number, protocol in enumerate(protocols, 1):
                found = [r for r in self.ceilings if (r.name, r.protocol) == (data, protocol)]
                yield Block(
                    data=str(data),
                    protocol=protocol,
                    suffix=f"-protocol{number}" if len(protocols) > 1 else "",
                    runs=of_data[of_data["protocol"] == protocol],
                    ceiling=found[0] if len({record.score for record in found}) == 1 else None,
                )

    def variant(self, run: RunRecord) -> str:
        """Return the name in `data` of the run's data set, as its images were made and counted."""
        same = (name for name, record in self.data.items() if record.key == run.data_key)
        return next(same, run.cell["data"]) if run.data_key else str(run.cell["data"])

    def run_folder(self, run: RunRecord) -> Path:
        """Return the folder in which a run keeps its files."""
        return self.folder / "runs" / run.run


def cell_name(cell: Cell) -> str:
    """Return a cell's name for people: `apples-descending-seed0`, further axes appended."""
    axes = "".join(f"-{key}={value}" for key, value in _axes(cell))
    return f"{cell['data']}-{cell['mode']}-seed{cell['seed']}{axes}"


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested settings with their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def axis_value(value: Any) -> Any:
    """Return a setting as axes are compared and shown: a list or mapping as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _axes(cell: Cell) -> Axes:
    extra = ((key, cell[key]) for key in cell if key not in ("data", "mode", "seed"))
    return tuple((key, axis_value(value)) for key, value in extra)


def _key(cell: Cell, without: str = "") -> str:
    """Return JSON that is equal for equal cells; without the seed, for cells of one pattern."""
    return json.dumps({key: cell[key] for key in cell if key != without}, sort_keys=True)


def _runs(folder: Path, wanted: list[str] | None, problems: list[str]) -> list[RunRecord]:
    """Return the sweep's own runs, of each cell the one written last.

    Name in `problems` the records that are left out, and the runs that failed before they could
    write a record. Without a list of names, all runs in the folder are wanted.
    """
    found = []
    for path in sorted(folder.glob("runs/*/run.json")):
        record = _parsed(path, RunRecord, problems)
        if record is not None and record.run != path.parent.name:
            problems.append(f"{path}: left out: the record of another run, {record.run}")
        elif record is not None:
            found.append(record)
    own = [run for run in found if wanted is None or run.run in wanted]
    latest = {_key(run.cell): run for run in sorted(own, key=lambda run: run.updated)}
    left = [run.run for run in found if latest.get(_key(run.cell)) is not run]
    if left:
        problems.append(f"left out, of other settings than the sweep's: {', '.join(left)}")
    for log in sorted(folder.glob("runs/*/failures.txt")):
        name = log.parent.name
        if not log.with_name("run.json").exists() and (wanted is None or name in wanted):
            problems.append(f"{name} failed before its training began: {_last_line(log)}")
    return [run for run in found if latest.get(_key(run.cell)) is run]


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        lines = [f"its log cannot be read: {error.strerror}"]
    return lines[-1] if lines else "no reason given"


def _read_all(folder: Path, model: type[Model], problems: list[str]) -> dict[str, Model]:
    """Return the JSON files of a folder by their names."""
    read = {path.stem: _parsed(path, model, problems) for path in sorted(folder.glob("*.json"))}
    return {name: record for name, record in read.items() if record is not None}


def _parsed(path: Path, model: type[Model], problems: list[str]) -> Model | None:
    """Return the record in a file; None, with an entry in `problems`, if it cannot be read."""
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
