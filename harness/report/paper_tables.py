"""The paper's tables for any grid: feature groups (2, 3), epochs and scores (4, 5), every run."""

from __future__ import annotations

from harness.records.run_record import RunRecord
from harness.records.sweep_records import GroupsRecord, RealScore
from harness.records.sweep_results import Outcome, Pattern, cell_name
from harness.report.table import Column, Table, Value


def paper_tables(outcome: Outcome) -> list[Table]:
    """What the paper prints, for every data set, and the runs behind it."""
    return [*group_tables(outcome), *score_tables(outcome), *run_tables(outcome)]


def group_tables(outcome: Outcome) -> list[Table]:
    """Centroid, size and range of every feature group: the paper's tables 2 and 3."""
    tables = []
    for data in outcome.data_sets:
        for name, record in outcome.groups.items():
            if record.data != data:
                continue
            centroids: list[Value] = [group.centroid for group in record.groups]
            sizes = [group.size for group in record.groups]
            ranges = [_range(group.lowest, group.highest, record) for group in record.groups]
            whole = _range(record.groups[0].lowest, record.groups[-1].highest, record)
            table = Table(
                key=f"groups-{name}",
                title=f"{data}: feature groups by {record.title}",
                columns=[Column("")]
                + [Column(f"group {group.number}", record.digits) for group in record.groups]
                + [Column("all")],
                rows=[
                    ["centroid (positive features)", *centroids, None],
                    ["feature counts", *ranges, whole],
                    ["images", *sizes, sum(sizes)],
                ]
                if record.by == "feature_count"
                else [
                    ["centroid", *centroids, None],
                    [record.label, *ranges, whole],
                    ["images", *sizes, sum(sizes)],
                ],
                notes=_group_notes(outcome, record, sizes),
            )
            tables.append(table)
    return tables


def score_tables(outcome: Outcome) -> list[Table]:
    """Epochs to peak and final score of each pattern's best run: the paper's tables 4 and 5.

    One table for each data set and score protocol, one column for each mode, and a block of
    rows for each combination of further axes.
    """
    tables = []
    for data, protocol, patterns in outcome.blocks():
        begun = {pattern.mode for pattern in patterns} | outcome.not_begun(data)
        modes = [mode for mode in outcome.modes if mode in begun]
        keys = list(dict.fromkeys(key for p in patterns for key, _ in p.axes))
        ceiling = outcome.ceiling(data, protocol)
        rows: list[list[Value]] = []
        for axes in dict.fromkeys(p.axes for p in patterns):
            by_mode = {p.mode: p for p in patterns if p.axes == axes}
            # as text: no decimals suit 0.0001 and true and 5,000 alike
            values: list[Value] = [
                str(v) if (v := dict(axes).get(k)) is not None else None for k in keys
            ]
            for title, of in _QUANTITIES:
                cells = [of(by_mode.get(mode)) for mode in modes]
                real = ceiling.score if ceiling and of is _final_score else None
                rows.append([*values, title, *cells, *([real] if ceiling else [])])
        tables.append(
            Table(
                key=f"scores-{data}" + outcome.suffix(data, protocol),
                title=f"{data}: epochs to peak and final score, best of n",
                columns=[
                    *map(Column, keys),
                    Column(""),
                    *(Column(mode, digits=3) for mode in modes),
                    *([Column("real images", digits=3)] if ceiling else []),
                ],
                rows=rows,
                notes=[f"Score: {protocol}.", *ceiling_note(ceiling), *_unfinished(patterns)],
            )
        )
    return tables


def run_tables(outcome: Outcome) -> list[Table]:
    """Every run of the sweep, whatever became of it, and the cells that have no run yet."""
    tables = []
    for data, protocol, patterns in outcome.blocks():
        stages = max((len(run.stages) for p in patterns for run in p.runs), default=0)
        rows: list[list[Value]] = []
        for pattern in patterns:
            for run in pattern.runs:
                peaks: list[Value] = [_peak(stage.peak_epoch, stage.epochs) for stage in run.stages]
                seconds = run.seconds.train + run.seconds.score + run.seconds.io + run.seconds.wait
                rows.append(
                    [
                        cell_name(run.cell) + (" ★" if run is pattern.representative else ""),
                        status(run),
                        *peaks,
                        *[None] * (stages - len(peaks)),
                        run.epochs_to_peak,
                        run.epochs_spent,
                        run.final_score,
                        run.best_score,
                        seconds,
                    ]
                )
        columns = [
            Column("run"),
            Column("status"),
            *(Column(f"peak of stage {n}") for n in range(1, stages + 1)),
            Column("epochs to peak"),
            Column("epochs spent"),
            Column("final score", digits=3),
            Column("best score", digits=3),
            Column("seconds"),
        ]
        tables.append(
            Table(
                key=f"runs-{data}" + outcome.suffix(data, protocol),
                title=f"{data}: every run",
                columns=columns,
                rows=rows,
                notes=[f"Score: {protocol}.", "★ stands for its pattern: the best of n."],
            )
        )
    if outcome.missing:
        missing: list[list[Value]] = [[cell_name(cell), "missing"] for cell in outcome.missing]
        columns = [Column("run"), Column("status")]
        tables.append(Table("runs-missing", "Runs that have not begun", columns, missing))
    return tables


def ceiling_note(ceiling: RealScore | None) -> list[str]:
    """How the column or row of real images was made."""
    if ceiling is None:
        return []
    return [f"Real images: {ceiling.images:,} of them scored in the same way, the ceiling."]


def status(run: RunRecord) -> str:
    """What became of a run, and why."""
    return f"{run.status}: {run.reason}" if run.reason else run.status


def _epochs_to_peak(pattern: Pattern | None) -> Value:
    best = pattern.representative if pattern else None
    return best.epochs_to_peak if best else None


def _final_score(pattern: Pattern | None) -> Value:
    best = pattern.representative if pattern else None
    return best.final_score if best else None


def _runs(pattern: Pattern | None) -> Value:
    return f"{len(pattern.finished)} of {pattern.planned}" if pattern else "none begun"


_QUANTITIES = (
    ("epochs to peak", _epochs_to_peak),
    ("final score", _final_score),
    ("finished runs", _runs),
)


def _unfinished(patterns: list[Pattern]) -> list[str]:
    """A sentence for each reason why a best of n could not choose from some runs."""
    left: dict[str, list[str]] = {}
    for pattern in patterns:
        for run in pattern.runs:
            if run not in pattern.finished:
                left.setdefault(status(run), []).append(cell_name(run.cell))
    return [f"Left out ({why}): {', '.join(names)}." for why, names in left.items()]


def _group_notes(outcome: Outcome, groups: GroupsRecord, sizes: list[int]) -> list[str]:
    notes = [f"The largest group is {max(sizes) / max(min(sizes), 1):.1f} times the smallest."]
    if record := outcome.data.get(groups.data):
        made = f"{record.images:,} images; {record.rejected:,} rejected"
        made += f", {record.duplicates:,} duplicates" if record.duplicates else ""
        made += f"; {record.matched:,} matched the rule" if record.matched is not None else ""
        notes.append(made + ".")
        if (weights := record.protocol.get("weights")) and groups.by == "feature_count":
            label = groups.label[0].upper() + groups.label[1:]
            notes.append(f"{label}, weights: {weights}.")
    return notes


def _range(low: float, high: float, record: GroupsRecord) -> str:
    """Whole numbers as they are, others with the decimals of the record's centroids."""
    low_shown, high_shown = (
        f"{value:.{record.digits}f}" if isinstance(value, float) else str(value)
        for value in (low, high)
    )
    return f"{low_shown} to {high_shown}"


def _peak(peak: int | None, epochs: int) -> Value:
    return None if peak is None else f"{peak:,} of {epochs:,}"
