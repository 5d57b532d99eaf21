"""Two sweeps side by side: means of each pattern, and the settings in which they differ."""

import pandas as pd

from harness.records.sweep_results import SweepResults, dotted
from harness.report.paper_tables import readable
from harness.report.statistics import improvement
from harness.report.table import Table


def comparison(first: SweepResults, second: SweepResults) -> list[Table]:
    """Return the scores of each pattern that either has, and the settings that differ.

    A pattern is that of one score protocol; the settings are those of each sweep's first run.
    """
    names = [first.plan.name, second.plan.name]
    if names[0] == names[1]:
        names = [str(first.folder), str(second.folder)]
    probability = (f"P({names[1]} is higher)", "P low", "P high")
    digits = dict.fromkeys(probability, 2) | {f"epochs to peak, {name}": 0 for name in names}
    both = pd.concat([first.frame.assign(sweep=0), second.frame.assign(sweep=1)])
    tables = []
    for (data, protocol), block in both.groupby(["data", "protocol"], sort=False):
        rows = []
        for _, runs in block.groupby("pattern", sort=False):
            row = {"pattern": runs["label"].iloc[0]}
            sweeps = [runs[runs["counts"] & (runs["sweep"] == number)] for number in (0, 1)]
            for name, finished in zip(names, sweeps, strict=True):
                row[f"finished runs, {name}"] = len(finished)
                row[f"final score, {name}"] = finished["final_score"].mean()
                row[f"epochs to peak, {name}"] = finished["epochs_to_peak"].mean()
            a, b = (finished["final_score"] for finished in sweeps)
            found = improvement(b, a) if len(a) and len(b) else [None] * 3
            row |= {"difference": b.mean() - a.mean(), **dict(zip(probability, found, strict=True))}
            rows.append(row)
        title = f"{data}: means of {names[0]} and {names[1]}"
        notes = [
            f"Score: {readable(str(protocol))}. Difference: second minus first sweep; final scores "
            "are maxima, which rise with the number of evaluations. P low and high: 95 % interval "
            "(Newcombe 2006, method 5)."
        ]
        tables.append(Table(f"{data}", title, pd.DataFrame(rows, dtype=object), notes, digits))
    if first.runs and second.runs:
        one, other = (dict(dotted(results.runs[0].settings)) for results in (first, second))
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        settings = [[key, str(one.get(key)), str(other.get(key))] for key in keys]
        title = "Settings of the first runs that differ"
        tables.append(Table("settings", title, pd.DataFrame(settings, columns=["key", *names])))
    return [table for table in tables if table.rows]
