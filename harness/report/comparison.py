"""Two sweeps side by side: the patterns they share, and the settings in which they differ."""

import pandas as pd

from harness.records.sweep_results import SweepResults, dotted
from harness.report.paper_tables import readable
from harness.report.statistics import improvement
from harness.report.table import Table


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
    probability = (f"P({names[1]} is higher)", "P low", "P high")
    digits = dict.fromkeys(probability, 2) | {f"epochs to peak, {name}": 0 for name in names}
    tables = []
    for number, block in enumerate(first.blocks(), 1):
        of_protocol = second.frame[second.frame["protocol"] == block.protocol]
        others = dict([*of_protocol.groupby("pattern")])
        rows = []
        for pattern, runs in block.runs.groupby("pattern", sort=False):
            if pattern not in others:
                continue
            row = {"pattern": runs["label"].iloc[0]}
            sweeps = [of[of["counts"]] for of in (runs, others[pattern])]
            for name, runs in zip(names, sweeps, strict=True):
                row[f"finished runs, {name}"] = len(runs)
                row[f"final score, {name}"] = runs["final_score"].mean()
                row[f"epochs to peak, {name}"] = runs["epochs_to_peak"].mean()
            a, b = (runs["final_score"] for runs in sweeps)
            found = improvement(b, a) if len(a) and len(b) else [None] * 3
            row |= {"difference": b.mean() - a.mean(), **dict(zip(probability, found, strict=True))}
            rows.append(row)
        title = f"{block.data}: means of {names[0]} and {names[1]}"
        notes = [
            f"Score: {readable(block.protocol)}. P low and high: 95 % interval (Newcombe 2006, "
            "method 5)."
        ]
        frame = pd.DataFrame(rows, dtype=object)
        tables.append(Table(f"comparison-{number}", title, frame, notes, digits))
    if first.runs and second.runs:
        one, other = (dict(dotted(results.runs[0].settings)) for results in (first, second))
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        settings = [[key, str(one.get(key)), str(other.get(key))] for key in keys]
        title = "Settings of the first runs that differ"
        frame = pd.DataFrame(settings, columns=["key", *names])
        tables.append(Table("comparison-settings", title, frame))
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
