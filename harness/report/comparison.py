"""Two sweeps side by side: the same patterns, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.run_record import RunRecord
from harness.records.sweep_results import Outcome, Pattern, dotted
from harness.report.inference import mean, probability_of_improvement
from harness.report.table import Column, Table, Value


def comparison_tables(first: Outcome, second: Outcome) -> list[Table]:
    """Patterns of both sweeps under the same score protocol, then what was set differently."""
    return [*_scores(first, second), *_settings(first, second)]


def unmatched(first: Outcome, second: Outcome) -> list[str]:
    """A sentence for each pattern that only one of the sweeps has under its protocol."""
    return [
        f"Only in {ours.name}: {pattern.data}, {pattern.label} ({pattern.protocol})."
        for ours, theirs in ((first, second), (second, first))
        for pattern in ours.patterns
        if _key(pattern) not in map(_key, theirs.patterns)
    ]


def _scores(first: Outcome, second: Outcome) -> Iterator[Table]:
    others = {_key(pattern): pattern for pattern in second.patterns}
    names = _names(first, second)
    for number, (data, protocol, patterns) in enumerate(first.blocks(), 1):
        rows: list[list[Value]] = []
        for pattern in patterns:
            if other := others.get(_key(pattern)):
                a, b = _finals(pattern), _finals(other)
                both = bool(a and b)
                rows.append(
                    [
                        pattern.label,
                        f"{len(a)} and {len(b)}",
                        mean(a),
                        mean(b),
                        sum(b) / len(b) - sum(a) / len(a) if both else None,
                        probability_of_improvement(b, a) if both else None,
                        mean([float(run.epochs_to_peak) for run in pattern.finished]),
                        mean([float(run.epochs_to_peak) for run in other.finished]),
                    ]
                )
        columns = [
            Column("pattern"),
            Column("finished runs"),
            *(Column(f"final score, {name}", 3) for name in names),
            Column("difference", 3),
            Column(f"P({names[1]} is higher)", 2),
            *(Column(f"epochs to peak, {name}") for name in names),
        ]
        if rows:
            title = f"{data}: means of {names[0]} and {names[1]}"
            yield Table(f"comparison-{number}", title, columns, rows, [f"Score: {protocol}."])


def _settings(first: Outcome, second: Outcome) -> Iterator[Table]:
    if first.runs and second.runs:
        a, b = (dict(dotted(outcome.runs[0].settings)) for outcome in (first, second))
        keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
        rows = [[key, str(a.get(key)), str(b.get(key))] for key in keys]
        columns = [Column("key"), *map(Column, _names(first, second))]
        if rows:
            yield Table("comparison-settings", "Settings of the first runs that differ",
                        columns, rows)  # fmt: skip


def _names(first: Outcome, second: Outcome) -> tuple[str, str]:
    """The sweeps' names, or their folders where the names are the same."""
    if first.name != second.name:
        return first.name, second.name
    return str(first.folder), str(second.folder)


def _finals(pattern: Pattern) -> list[float]:
    def final(run: RunRecord) -> float:
        assert run.final_score is not None  # as `Pattern.finished` has it
        return run.final_score

    return [final(run) for run in pattern.finished]


def _key(pattern: Pattern) -> tuple[object, ...]:
    return pattern.data, pattern.mode, pattern.axes, pattern.protocol
