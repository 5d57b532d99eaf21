"""The paper's tables for any grid: feature groups (2, 3), epochs and scores (4, 5), every run."""

from __future__ import annotations

import pandas as pd

from harness.records.run_record import RunRecord
from harness.records.sweep_records import GroupsRecord, RealScore
from harness.records.sweep_results import Block, SweepResults, cell_name
from harness.report.table import Column, Table, Value

NEAR = 5
"""Change of a feature count that another precision, such as bf16, may cause."""


def group_tables(results: SweepResults) -> list[Table]:
    """Return centroid, size and range of every feature group: tables 2 and 3."""
    tables = []
    for name, record in sorted(
        results.groups.items(), key=lambda item: results.data_sets.index(item[1].data)
    ):
        groups, by_count = record.groups, record.by == "feature_count"
        sizes = [group.size for group in groups]
        notes = [f"The largest group is {max(sizes) / max(min(sizes), 1):.1f} times the smallest."]
        if data := results.data.get(record.data):
            notes.append(
                f"{data.images:,} images; {data.rejected:,} rejected"
                + (f", {data.duplicates:,} duplicates" if data.duplicates else "")
                + (f"; {data.matched:,} matched the rule" if data.matched is not None else "")
                + "."
            )
            if by_count and (weights := data.protocol.get("weights")):
                label = record.label[0].upper() + record.label[1:]
                notes.append(f"{label}, weights: {weights}.")
        centroids = [group.centroid for group in groups]
        ranges = [_range(group.lowest, group.highest, record) for group in groups]
        whole = _range(groups[0].lowest, groups[-1].highest, record)
        near = record.split.near_boundaries(NEAR)
        crossing: list[Value] = [f"images within {NEAR} of the next group", *near, None, sum(near)]
        tables.append(
            Table(
                key=f"groups-{name}",
                title=f"{record.data}: feature groups by {record.title}",
                columns=[
                    Column(""),
                    *(Column(f"group {group.number}", record.digits) for group in groups),
                    Column("all"),
                ],
                rows=[
                    ["centroid (positive features)" if by_count else "centroid", *centroids, None],
                    ["feature counts" if by_count else record.label, *ranges, whole],
                    ["images", *sizes, sum(sizes)],
                    *([crossing] if by_count else []),
                ],
                notes=notes,
            )
        )
    return tables


def score_tables(results: SweepResults) -> list[Table]:
    """Return epochs to peak and final score of each pattern's best run: tables 4 and 5.

    One table for each data set and score protocol, with a column for each mode, and a block of
    rows for each combination of further axes.
    """
    tables = []
    for block in results.blocks():
        begun = {*block.runs["mode"]} | results.not_begun(block.data)
        modes = [mode for mode in results.modes if mode in begun]
        keys = list(dict.fromkeys(key for axes in block.runs["axes"] for key, _ in axes))
        real = [block.ceiling.score] if block.ceiling else []
        rows: list[list[Value]] = []
        for axes, runs in block.by_axes():
            by_mode = dict(iter(runs.groupby("mode")))
            # as text: no number of decimals suits 0.0001, true and 5,000 alike
            values = [None if v is None else str(v) for v in map(dict(axes).get, keys)]
            quantities = zip(*(_best_of_n(by_mode.get(mode)) for mode in modes), strict=True)
            titles = ("epochs to peak", "final score", "finished runs")
            for title, cells in zip(titles, quantities, strict=True):
                of_real = real if title == "final score" else [None] * len(real)
                rows.append([*values, title, *cells, *of_real])
        tables.append(
            Table(
                key=f"scores-{block.data}{block.suffix}",
                title=f"{block.data}: epochs to peak and final score, best of n",
                columns=[
                    *map(Column, [*keys, ""]),
                    *(Column(mode, 3) for mode in modes),
                    *(Column("real images", 3) for _ in real),
                ],
                rows=rows,
                notes=[
                    f"Score: {block.protocol}.",
                    *ceiling_note(block.ceiling),
                    *_left_out(block),
                ],
            )
        )
    return tables


def _best_of_n(runs: pd.DataFrame | None) -> tuple[Value, Value, Value]:
    """Return the best run's epochs to peak and final score, and how many runs it is the best of."""
    if runs is None:
        return None, None, "none begun"
    finished = f"{runs['counts'].sum()} of {runs['planned'].iloc[0]}"
    for best in runs["record"][runs["best"]]:
        return best.epochs_to_peak, best.final_score, finished
    return None, None, finished


def _left_out(block: Block) -> list[str]:
    """Return a sentence for each reason why a best of n could not choose from some runs."""
    names: dict[str, list[str]] = {}
    for run in block.runs["record"][~block.runs["counts"]]:
        names.setdefault(status(run), []).append(cell_name(run.cell))
    return [f"Left out ({why}): {', '.join(cells)}." for why, cells in names.items()]


def run_tables(results: SweepResults) -> list[Table]:
    """Return every run of the sweep with its status, and the cells that have no run yet."""
    tables = []
    for block in results.blocks():
        stages = max(len(run.stages) for run in block.runs["record"])
        rows: list[list[Value]] = []
        for run, best in zip(block.runs["record"], block.runs["best"], strict=True):
            peaks = [
                None if stage.peak_epoch is None else f"{stage.peak_epoch:,} of {stage.epochs:,}"
                for stage in run.stages
            ]
            rows.append(
                [
                    cell_name(run.cell) + (" ★" if best else ""),
                    status(run),
                    *peaks,
                    *[None] * (stages - len(peaks)),
                    run.epochs_to_peak,
                    run.epochs_spent,
                    run.final_score,
                    run.best_score,
                    sum(run.seconds.model_dump().values()),
                ]
            )
        columns = [
            *map(Column, ("run", "status")),
            *(Column(f"peak of stage {n}") for n in range(1, stages + 1)),
            *map(Column, ("epochs to peak", "epochs spent")),
            *(Column(name, 3) for name in ("final score", "best score")),
            Column("seconds"),
        ]
        tables.append(
            Table(
                key=f"runs-{block.data}{block.suffix}",
                title=f"{block.data}: every run",
                columns=columns,
                rows=rows,
                notes=[f"Score: {block.protocol}.", "★ stands for its pattern: the best of n."],
            )
        )
    if results.missing:
        missing = [[cell_name(cell), "missing"] for cell in results.missing]
        columns = [Column("run"), Column("status")]
        tables.append(Table("runs-missing", "Runs that have not begun", columns, missing))
    return tables


def ceiling_note(ceiling: RealScore | None) -> list[str]:
    """Return how the column or row of real images was made."""
    if ceiling is None:
        return []
    return [f"Real images: {ceiling.images:,} of them scored in the same way, the ceiling."]


def status(run: RunRecord) -> str:
    """Return a run's status, with its reason."""
    return f"{run.status}: {run.reason}" if run.reason else run.status


def _range(low: float, high: float, record: GroupsRecord) -> str:
    """Return whole numbers as they are, others with the decimals of the record's centroids."""
    shown = (f"{v:.{record.digits}f}" if isinstance(v, float) else str(v) for v in (low, high))
    return " to ".join(shown)
