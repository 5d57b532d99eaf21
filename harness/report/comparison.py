"""Two sweeps side by side: the patterns they share, and the settings in which they differ."""

from harness.records.sweep_results import SweepResults, dotted
from harness.report.paper_tables import readable
from harness.report.statistics import improvement
from harness.report.table import Column, Table, Value


def comparison(first: SweepResults, second: SweepResults) -> str:
    """Return the tables and the patterns that only one sweep has, as text."""
    tables = [table.text() for table in comparison_tables(first, second)]
    return "\n".join([*tables, *unmatched(first, second)])


def comparison_tables(first: SweepResults, second: SweepResults) -> list[Table]:
    """Return the scores of the patterns that both have, and the settings that differ.

    A pattern is that of one score protocol; the settings are those of each sweep's first run.
    """
    names = [first.plan.name, second.plan.name]
    if names[0] == names[1]:
        names = [str(first.folder), str(second.folder)]
    tables = []
    for number, block in enumerate(first.blocks(), 1):
        others = second.frame[second.frame["protocol"] == block.protocol]
        rows: list[list[Value]] = []
        for pattern, of_first in block.runs.groupby("pattern", sort=False):
            of_second = others[others["pattern"] == pattern]
            if of_second.empty:
                continue
            sweeps = [runs[runs["counts"]] for runs in (of_first, of_second)]
            a, b = (runs["final_score"] for runs in sweeps)
            rows.append(
                [
                    of_first["label"].iloc[0],
                    *(len(a), len(b)),
                    *(a.mean(), b.mean(), b.mean() - a.mean()),
                    *(improvement(b, a) if len(a) and len(b) else [None] * 3),
                    *(runs["epochs_to_peak"].mean() for runs in sweeps),
                ]
            )
        columns = [
            Column("pattern"),
            *(Column(f"finished runs, {name}") for name in names),
            *(Column(f"final score, {name}", 3) for name in names),
            Column("difference", 3),
            *(Column(text, 2) for text in (f"P({names[1]} is higher)", "P low", "P high")),
            *(Column(f"epochs to peak, {name}") for name in names),
        ]
        title = f"{block.data}: means of {names[0]} and {names[1]}"
        notes = [
            f"Score: {readable(block.protocol)}. P low and high: 95 % interval (Newcombe 2006, "
            "method 5)."
        ]
        tables.append(Table(f"comparison-{number}", title, columns, rows, notes))
    if first.runs and second.runs:
        one, other = (dict(dotted(results.runs[0].settings)) for results in (first, second))
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        settings = [[key, str(one.get(key)), str(other.get(key))] for key in keys]
        columns, title = [*map(Column, ("key", *names))], "Settings of the first runs that differ"
        tables.append(Table("comparison-settings", title, columns, settings))
    return [table for table in tables if table.rows]


def unmatched(first: SweepResults, second: SweepResults) -> list[str]:
    """Return a sentence for each pattern that only one of the sweeps has under its protocol."""
    ours, theirs = (
        frame["data"] + ", " + frame["label"] + " (" + frame["protocol"] + ")"
        for frame in (first.frame, second.frame)
    )
    return [
        f"Only in {results.plan.name}: {text}."
        for results, some, others in ((first, ours, theirs), (second, theirs, ours))
        for text in some[~some.isin(others)].unique()
    ]
