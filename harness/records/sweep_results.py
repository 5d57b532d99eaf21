"""The results of one sweep so far, read from its folder into one table of runs.

A file that cannot be read, or that belongs to other runs, is left out and named in `problems`.
"""

import json
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from featgan.errors import UserError
from featgan.scores.image_quality import Qualities
from featgan.settings import as_shown
from harness.records.run_record import RunRecord
from harness.records.sweep_records import (
    CountStatistics,
    DataRecord,
    GroupsRecord,
    RealRecord,
    Rescored,
    SweepRecord,
)
from harness.storage.sealed import first_problem

Cell = dict[str, Any]
Axes = tuple[tuple[str, Any], ...]
"""Further axes of the grid by dotted key, such as `(("groups.k", 4),)`."""
Model = TypeVar("Model", bound=BaseModel)

PAPER_MODES = ("descending", "ascending", "conventional")
"""The order of the paper's tables; further modes follow in the order of the sweep."""
QUALITIES = [field.name for field in fields(Qualities) if field.name != "images"]
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("data", "mode", "seed", "axes", "protocol", "status", "name"), object),
    **dict.fromkeys(("outcome", "pattern", "label", "record", "metrics"), object),
    **dict.fromkeys(("epochs_to_peak", "images_to_peak", "epochs_spent", "choices"), int),
    **dict.fromkeys(("final_score", "score_sd", "best_score", "spread", "seconds"), float),
    **dict.fromkeys(("fresh", "fresh_sd", "fresh_last", "fresh_last_sd"), float),
    **{"rescore": float, "rescore_protocol": object, "images_seen": float},
    **{"score_as_real": float, "metrics_as_real": object, "further": object},
    **dict.fromkeys((*QUALITIES, "feature_count", "feature_count_sd"), float),
}
"""Columns of the frame; a missing float is NaN."""
LOWEST_SCORE = 1.0
"""The lowest Inception Score; that of a run which diverged, wherever scores are compared."""


@dataclass(frozen=True)
class Block:
    """The runs of one data set under one score protocol: what may stand in one table."""

    data: str
    protocol: str
    suffix: str
    """Ending of the tables' keys where the data set has runs of several protocols."""
    runs: pd.DataFrame
    """The rows of `SweepResults.frame`."""
    modes: list[str]
    """Modes of the runs, and those of the data set of which no run has a record yet."""
    real: RealRecord | None
    """The real images under this protocol; None where the grid has them in several sizes."""

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

    def by_seed(self, column: str) -> pd.DataFrame:
        """Return a column of finished runs, fresh scores of diverged ones too: [pattern, seed]."""
        runs = self.runs if column in ("fresh", "fresh_last") else self.finished
        return runs.pivot(index="pattern", columns="seed", values=column)


class SweepResults:
    """Everything below one sweep's folder that tables and figures are made from."""

    def __init__(self, folder: Path) -> None:
        """Read a sweep's folder, finished or not; raise UserError where there is none."""
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder of a sweep")
        self.folder, self.problems = folder, list[str]()
        plan = self._read("sweep.json", SweepRecord).get("sweep")
        self.runs = self._read_runs(plan.runs if plan else None)
        self.groups = self._read("groups/*.json", GroupsRecord)
        """Groups by the names of their files."""
        cells = [run.cell for run in self.runs]
        self.plan = plan or SweepRecord(name=folder.resolve().name, cells=cells)
        """What the sweep asks for; without `sweep.json`, the runs that are there."""
        if not (self.runs or self.groups or self.plan.cells):
            raise UserError(f"{folder}: holds no runs; give the folder of a sweep")
        hashes = {run.run: run.generator_sha256 for run in self.runs}
        rescored = self._read(
            "runs/*/rescored.json",
            Rescored,
            lambda name, record: hashes.get(name) in (None, record.generator_sha256),
            "measured of another generator than the run's",
        )
        self.rescored = {name: record for name, record in rescored.items() if name in hashes}
        """Measurements with fresh noise, by run."""
        self.data = data = self._read("data/*.json", DataRecord)
        """Data records by the names of their files: data sets, or variants of them."""
        real = self._read(
            "real/*.json",
            RealRecord,
            lambda _, record: record.name not in data or record.digest == data[record.name].digest,
            "measured of other images than the sweep's; run the sweep again",
        )
        self.real = [*real.values()]
        """Real images, by data record and score protocol."""
        self.real_by_name = {record.name: record for record in self.real}
        """Measurements of real images by the name of the data record, of any protocol."""
        self.count_groups = [of for of in self.groups.values() if of.by == "feature_count"]
        """The groups that were made by feature counts, not by another value."""
        cells, of_groups = [*self.plan.cells, *cells], self.groups.values()
        names = [cell["data"] for cell in cells] + [record.data for record in of_groups]
        self.data_sets = list(dict.fromkeys(names))
        """Names of the data sets in the order of the sweep."""
        modes = dict.fromkeys(cell["mode"] for cell in cells)
        paper = [mode for mode in PAPER_MODES if mode in modes]
        self.modes = list(dict.fromkeys([*paper, *modes]))
        """The paper's modes in the paper's order, then the others."""

    def _read(
        self,
        pattern: str,
        model: type[Model],
        belongs: Callable[[str, Model], bool] = lambda name, record: True,
        flaw: str = "",
    ) -> dict[str, Model]:
        """Return the records in the files of a pattern, by name: that of the file or of the run.

        `flaw` is the problem with one for which `belongs(name, record)` is False.
        """
        records = {}
        for path in sorted(self.folder.glob(pattern)):
            name = path.parent.name if pattern.startswith("runs/") else path.stem
            try:
                record = model.model_validate_json(path.read_bytes())
                problem = None if belongs(name, record) else f"left out: {flaw}"
            except ValidationError as error:
                problem = f"cannot be read: {first_problem(error)}"
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
            if problem:
                self.problems.append(f"{path}: {problem}")
            else:
                records[name] = record
        return records

    def _read_runs(self, wanted: list[str] | None) -> list[RunRecord]:
        """Return the sweep's own runs, of each cell the one written last.

        Name in `problems` the records that are left out, and the runs that failed before they
        could write a record. Without a list of names, all runs in the folder are wanted.
        """
        found = self._read(
            "runs/*/run.json",
            RunRecord,
            lambda name, run: run.run == name,
            "the record of another run",
        ).values()
        own = [run for run in found if wanted is None or run.run in wanted]
        latest = {_key(run.cell): run for run in sorted(own, key=lambda run: run.updated)}
        left = [run.run for run in found if latest.get(_key(run.cell)) is not run]
        if left:
            names = ", ".join(left)
            self.problems.append(f"left out, of other settings than the sweep's: {names}")
        for log in sorted(self.folder.glob("runs/*/failures.txt")):
            name, reasons = log.parent.name, ["no reason given"]
            if not log.with_name("run.json").exists() and (wanted is None or name in wanted):
                with suppress(OSError):
                    reasons += log.read_text(errors="replace").splitlines()
                self.problems.append(f"{name} failed before its training began: {reasons[-1]}")
        return [run for run in found if latest.get(_key(run.cell)) is run]

    @cached_property
    def missing(self) -> list[Cell]:
        """Cells of the grid that have no run record yet."""
        begun = {_key(run.cell) for run in self.runs}
        return [cell for cell in self.plan.cells if _key(cell) not in begun]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a run, in the order of the tables: data set, protocol, axes, mode, seed.

        | column | |
        |---|---|
        | data, mode, seed, axes | its cell; `axes` is a tuple of (dotted key, value) |
        | protocol, status, seconds | as in its record; seconds are those of all its parts |
        | name, outcome | of its cell, for people; its status with the reason |
        | pattern, label | JSON of the cell without its seed; mode and axes for people |
        | final_score, best_score, epochs_to_peak, images_to_peak, epochs_spent, choices | its |
        | collapsed | True if it finished and makes nearly one image only |
        | counts | True if finished with scores, and so part of means and best of n |
        | best | True if its pattern's best of n: the first of the highest best scores |
        | metrics, spread, score_sd, images_seen | of the evaluation that is its final score |
        | rescore, rescore_protocol | the score with many images, and its protocol |
        | fresh, fresh_last; with _sd | fresh scores of its protocol: peak, last evaluation |
        | score_as_real, metrics_as_real | of as many images as real ones were measured |
        | further | metrics that were measured later, by number and protocol |
        | outlines, ..., feature_count, feature_count_sd | of its generated images |
        | record | the RunRecord |
        """
        rows = [self._row(run) for run in self.runs]
        frame = pd.DataFrame(rows, columns=[*COLUMNS], dtype=object).astype(COLUMNS)
        places = {"data": self.data_sets, "mode": self.modes, "axes": [*frame["axes"].unique()]}
        frame = frame.sort_values(
            ["data", "protocol", "axes", "mode", "seed"],
            key=lambda of: of.map(places[of.name].index) if of.name in places else of,
            ignore_index=True,
        )
        scored = np.isfinite(frame[["final_score", "best_score"]].to_numpy()).all(axis=1)
        frame["counts"] = (frame["status"] == "finished") & scored
        alike = (frame["near_duplicates"] > 0.5) | (frame["spread"] < 1)
        low = frame["fresh"].fillna(frame["final_score"]) < 1.02 * LOWEST_SCORE
        frame["collapsed"] = (frame["status"] == "finished") & (alike | low)
        counting = frame[frame["counts"]].groupby(["pattern", "protocol"])["best_score"]
        frame["best"] = frame.index.isin(counting.idxmax())
        return frame

    def _row(self, run: RunRecord) -> dict[str, Any]:
        """Return what `frame` takes from one run alone."""
        again, axes = self.rescored.get(run.run), _axes(run.cell)
        row = run.cell | dict(again or {}) | dict(run)
        row |= {
            "axes": axes,
            "protocol": run.score_protocol,
            "name": cell_name(run.cell),
            "outcome": f"{run.status}: {run.reason}" if run.reason else run.status,
            "pattern": _key(run.cell, without="seed"),
            "label": ", ".join([run.cell["mode"], *(f"{key}={value}" for key, value in axes)]),
            "metrics": {},
            "further": dict(ChainMap(*again.further.values())) if again else {},
            "images_to_peak": run.images_to_peak,
            "choices": run.choices,
            "seconds": sum(vars(run.seconds).values()),
            "record": run,
        }
        peak = [(stage.stage, stage.peak_epoch) for stage in run.stages[-1:]]
        for one in run.evaluations:
            if (one.stage, one.epoch) in peak:
                row |= {"metrics": one.metrics, "spread": one.spread, "score_sd": one.score_std}
                row["images_seen"] = one.images_seen
        if again:
            row |= vars(again.qualities) | count_columns(again.feature_counts)
            row |= {"rescore": again.score, "rescore_protocol": again.protocol}
            if again.same_protocol == run.score_protocol:
                draws = {"fresh": again.fresh_scores, "fresh_last": again.last_fresh_scores}
                for name, scores in draws.items():
                    of = pd.Series(scores, dtype=float)
                    row |= {name: of.mean(), f"{name}_sd": of.std()}
        if run.status == "diverged":
            row |= {"fresh": LOWEST_SCORE, "fresh_last": LOWEST_SCORE}
        return row

    def real_of(self, run: RunRecord) -> RealRecord | None:
        """Return the measurements of a run's real images under its protocols."""
        wanted = self.variant(run), run.score_protocol, run.metrics_protocol
        found = (r for r in self.real if (r.name, r.protocol, r.metrics_protocol) == wanted)
        return next(found, None)

    def held_out(self, run: RunRecord) -> float:
        """Return the share of a data set that is held out of a run; UserError if none is known."""
        record = self.data.get(self.variant(run))
        if record is None:
            raise UserError(f"{self.folder}/data: no record for {run.run}; run the sweep again")
        return float(record.source.get("held_out", 0.0))

    def blocks(self) -> Iterator[Block]:
        """Yield the runs by data set and score protocol; scores of two protocols never mix."""
        for data, of_data in self.frame.groupby("data", sort=False):
            protocols = list(of_data["protocol"].unique())
            planned = {cell["mode"] for cell in self.plan.cells if cell["data"] == data}
            not_begun = planned - {*of_data["mode"]}
            for number, protocol in enumerate(protocols, 1):
                runs = of_data[of_data["protocol"] == protocol]
                suffix = f"-protocol{number}" if len(protocols) > 1 else ""
                modes = [mode for mode in self.modes if mode in {*runs["mode"]} | not_begun]
                variants = {*map(self.variant, runs["record"])}
                real = self.real_of(runs["record"].iloc[0]) if len(variants) == 1 else None
                yield Block(str(data), protocol, suffix, runs, modes, real)

    def variant(self, run: RunRecord) -> str:
        """Return the name in `data` of the run's data set, as its images were made and counted."""
        same = (name for name, record in self.data.items() if record.key == run.data_key)
        return next(same, run.cell["data"]) if run.data_key else str(run.cell["data"])


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


def _axes(cell: Cell) -> Axes:
    extra = ((key, cell[key]) for key in cell if key not in ("data", "mode", "seed"))
    return tuple((key, as_shown(value)) for key, value in extra)


def _key(cell: Cell, without: str = "") -> str:
    """Return JSON that is equal for equal cells; without the seed, for cells of one pattern."""
    return json.dumps({key: cell[key] for key in cell if key != without}, sort_keys=True)


def count_columns(counts: CountStatistics) -> dict[str, float]:
    """Return feature counts as columns of the frame."""
    return {"feature_count": counts.mean, "feature_count_sd": counts.sd}
