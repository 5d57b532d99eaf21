"""What the paper's best of 3 leaves out: every seed, its scatter, fresh scores, speed, pairs.

One table for each data set and score protocol; a score of another protocol gets a column of
its own, with the protocol as its heading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from harness.records.run_record import RunRecord
from harness.records.sweep_records import RealScore
from harness.records.sweep_results import PAPER_MODES, Outcome, Pattern, dotted, spelled
from harness.report.inference import compare, deviation, mean
from harness.report.paper_tables import ceiling_note
from harness.report.table import Column, Table, Value

Measure = Callable[[RunRecord], float | None]


STAGE_EPOCHS = "training.stage_epochs"
STAGING = ("stages.", "groups.", STAGE_EPOCHS)


def few_seeds(pairs: int) -> list[str]:
    """The remark that a comparison over few seeds needs."""
    if not 1 < pairs <= 5:
        return []
    return [
        f"{pairs} seeds make these numbers coarse: an interval over {pairs} differences is hardly "
        f"more than their range, and a probability moves in steps of 1/{pairs**2}."
    ]


def honest_tables(outcome: Outcome, reach: float | None = None) -> list[Table]:
    """Seeds, selection, speed and paired differences of every data set and protocol.

    `reach` is the score whose epochs and seconds are told; by default the highest that every
    finished run of the data set reached.
    """
    tables = []
    for data, protocol, patterns in outcome.blocks():
        if any(pattern.finished for pattern in patterns):
            suffix = outcome.suffix(data, protocol)
            tables += [
                seed_table(outcome, data, protocol, patterns, suffix),
                reach_table(outcome, data, protocol, patterns, suffix, reach),
                pair_table(outcome, data, protocol, patterns, suffix),
                metric_table(outcome, data, protocol, patterns, suffix),
            ]
    return [table for table in tables if table.rows]


def seed_table(
    outcome: Outcome, data: str, protocol: str, patterns: list[Pattern], suffix: str
) -> Table:
    """Final score of every seed, mean and deviation, and how much the selection flatters."""
    seeds = sorted({run.cell["seed"] for pattern in patterns for run in pattern.runs})
    others = _protocols(outcome, patterns)
    rows: list[list[Value]] = []
    for pattern in patterns:
        by_seed = {run.cell["seed"]: run.final_score for run in pattern.finished}
        scores = [score for score in by_seed.values() if score is not None]
        epochs = [float(run.epochs_to_peak) for run in pattern.finished]
        best = pattern.representative
        chosen = best.final_score if best else None
        again = fresh(outcome, best) if best else None
        flattery = chosen - again if chosen is not None and again is not None else None
        rows.append(
            [
                pattern.label,
                *(by_seed.get(seed) for seed in seeds),
                mean(scores),
                deviation(scores),
                chosen,
                *([again, flattery] if others else []),
                mean(epochs),
                deviation(epochs),
                mean([float(run.epochs_spent) for run in pattern.finished]),
                *(_rescored(outcome, best, other) for other in others),
            ]
        )
    if ceiling := outcome.ceiling(data, protocol):
        gaps: list[Value] = [None] * (len(rows[0]) - len(seeds) - 2)
        rows.append(["real images", *[None] * len(seeds), ceiling.score, *gaps])
    columns = [
        Column("pattern"),
        *(Column(f"seed {seed}", 3) for seed in seeds),
        *(Column(name, 3) for name in ("mean", "sd", "best of n")),
        *(Column(name, 3) for name in ("fresh", "flattery") if others),
        Column("epochs to peak, mean"),
        Column("sd"),
        Column("epochs spent, mean"),
        *(Column(f"best of n, {other}", 3) for other in others),
    ]
    notes = [f"Final scores: {protocol}.", *ceiling_note(ceiling)]
    if others:
        notes.append(
            "Fresh: the best of n again, same protocol, noise its training never saw; the mean "
            "of several draws. Flattery: what choosing the highest of noisy scores added."
        )
    else:
        notes.append("Not re-scored yet: python harness/results.py RESULTS --rescore.")
    return Table(f"seeds-{data}{suffix}", f"{data}: every seed", columns, rows, notes)


def reach_table(
    outcome: Outcome,
    data: str,
    protocol: str,
    patterns: list[Pattern],
    suffix: str,
    reach: float | None,
) -> Table:
    """Epochs spent and training seconds until a score was first measured."""
    finished = [run for pattern in patterns for run in pattern.finished]
    level = min(run.best_score or 0.0 for run in finished) if reach is None else reach
    rows: list[list[Value]] = []
    for pattern in (pattern for pattern in patterns if pattern.finished):
        there = [point for run in pattern.finished if (point := reached(run, level))]
        epochs, seconds = [float(e) for e, _ in there], [s for _, s in there]
        rows.append(
            [
                pattern.label,
                f"{len(there)} of {len(pattern.finished)}",
                mean(epochs),
                deviation(epochs),
                mean(seconds),
                deviation(seconds),
            ]
        )
    columns = ["pattern", "runs that reached it", "epochs spent", "sd", "training seconds", "sd"]
    which = "the highest that every finished run reached" if reach is None else "as asked"
    return Table(
        f"reach-{data}{suffix}",
        f"{data}: epochs and seconds to reach a score of {level:.3f}",
        [Column(name, number // 4) for number, name in enumerate(columns)],
        rows,
        [
            f"Score: {protocol}; the level is {which}.",
            "Epochs of early stages are shorter: they hold fewer images. Seconds count training "
            "alone, on the machine it ran on.",
        ],
    )


def pair_table(
    outcome: Outcome, data: str, protocol: str, patterns: list[Pattern], suffix: str
) -> Table:
    """Differences between comparable patterns, over the seeds both finished."""
    measures: list[tuple[str, int, Measure]] = [
        ("final score", 3, lambda run: run.final_score),
        ("fresh score", 3, lambda run: fresh(outcome, run)),
        ("epochs to peak", 0, lambda run: float(run.epochs_to_peak)),
    ]
    rows: list[list[Value]] = []
    for name, digits, of in measures:
        for a, b in combinations(patterns, 2):
            if comparable(a, b) and (pairs := paired(a, b, of)):
                found = compare(*zip(*pairs, strict=True))
                interval = f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"
                rows.append(
                    [
                        name,
                        f"{a.label} minus {b.label}",
                        found.pairs,
                        f"{found.mean:+.{digits}f}",
                        interval if found.pairs > 1 else None,
                        found.probability,
                    ]
                )
    most = max((int(row[2] or 0) for row in rows), default=0)
    columns = [
        *map(Column, ("of", "difference", "seeds", "mean", "95 % interval")),
        Column("P(first is higher)", 2),
    ]
    return Table(
        f"pairs-{data}{suffix}",
        f"{data}: paired differences, same seed and same start",
        columns,
        rows,
        [
            f"Score: {protocol}; interval: bootstrap of the mean over seeds.",
            *few_seeds(most),
        ],
    )


def metric_table(
    outcome: Outcome, data: str, protocol: str, patterns: list[Pattern], suffix: str
) -> Table:
    """The further metrics at the last stage's peak, mean over the finished runs."""
    rows: list[list[Value]] = []
    names = list(
        dict.fromkeys(name for p in patterns for run in p.finished for name in peak_metrics(run))
    )
    for pattern in patterns:
        found = [metrics for run in pattern.finished if (metrics := peak_metrics(run))]
        if found:
            means = (mean([m[name] for m in found if name in m]) for name in names)
            rows.append([pattern.label, len(found), *means])
    ceiling = outcome.ceiling(data, protocol)
    if rows and ceiling and ceiling.metrics:
        rows.append(["real images", None, *(ceiling.metrics.get(name) for name in names)])
    how = "; ".join(sorted({run.metrics_protocol for p in patterns for run in p.finished} - {""}))
    return Table(
        f"metrics-{data}{suffix}",
        f"{data}: further metrics at the final score's evaluation",
        [Column("pattern"), Column("runs"), *(Column(name, 3) for name in names)],
        rows,
        [
            f"Means over runs, of the images of the score. How: {how}. "
            "A peak is the score's, unless stages.watch names a metric.",
            *_compared(ceiling),
        ],
    )


def _compared(ceiling: RealScore | None) -> list[str]:
    """With how many images the metrics of real images were made: another n gives another FID."""
    if ceiling is None or ceiling.metrics_images is None:
        return []
    part, others = ceiling.metrics_images
    return [
        f"Real images: {part:,} of them against the {others:,} others. FID and KID depend on how "
        "many images are compared: this row is a bound of the others only where theirs, n and "
        "real, are alike."
    ]


def peak_metrics(run: RunRecord) -> dict[str, float]:
    """The further metrics of the evaluation that is a run's final score."""
    last = run.stages[-1]
    at_peak = (e for e in run.evaluations if (e.stage, e.epoch) == (last.stage, last.peak_epoch))
    return next((evaluation.metrics for evaluation in at_peak), {})


def comparable(a: Pattern, b: Pattern) -> bool:
    """Whether two patterns differ in one thing, or one is of the paper: its mode, and no axis.

    What a sweep adds to the paper may take several settings at once.
    """
    of_paper = any(not p.axes and p.mode in PAPER_MODES for p in (a, b))
    different = differences(a, b)
    return different == 1 or (of_paper and different > 1)


def differences(a: Pattern, b: Pattern) -> int:
    """In how many things two patterns of a data set differ: the mode, and each further axis.

    Grids may have different axes: a run without one has the sweep file's own setting. For a
    conventional run the settings of staging mean nothing: it is the baseline of all. Stages of
    another length are no difference where more or fewer of them make the run as long.
    """
    keys = dict.fromkeys(key for pattern in (a, b) for key, _ in pattern.axes)
    different = [
        _setting(a, key) != _setting(b, key)
        for key in keys
        if not (key == STAGE_EPOCHS and _as_long(a, b))
        and not any(
            p.mode == "conventional" and key not in dict(p.axes) and key.startswith(STAGING)
            for p in (a, b)
        )
    ]
    return (a.mode != b.mode) + sum(different)


def _as_long(a: Pattern, b: Pattern) -> bool:
    """Whether the stages of both have as many epochs in all."""
    first, second = (_setting(p, "groups.k") * _setting(p, STAGE_EPOCHS) for p in (a, b))
    return bool(first == second)


def _setting(pattern: Pattern, key: str) -> Any:
    """An axis' value, or what the runs' settings say where it was no axis."""
    own = dict(dotted(pattern.runs[0].settings)).get(key)
    return dict(pattern.axes).get(key, spelled(own))


def paired(a: Pattern, b: Pattern, of: Measure) -> list[tuple[float, float]]:
    """Values of the seeds that both patterns finished, where there are values."""
    others = {run.cell["seed"]: of(run) for run in b.finished}
    pairs = [(of(run), others.get(run.cell["seed"])) for run in a.finished]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def fresh(outcome: Outcome, run: RunRecord) -> float | None:
    """Mean of a run's fresh scores, if they are of its own protocol."""
    again = outcome.rescored.get(run.run)
    if again is None or again.same_protocol != run.score_protocol:
        return None
    return mean(again.fresh_scores)


def reached(run: RunRecord, level: float) -> tuple[int, float] | None:
    """Epochs spent and training seconds at the first evaluation of `level` or more."""
    batch = run.settings.get("training", {}).get("batch_size", 0)
    seconds, steps = 0.0, 0
    for evaluation in run.evaluations:
        seconds += (evaluation.steps - steps) * batch / max(evaluation.images_per_second, 1e-9)
        steps = evaluation.steps
        if evaluation.score >= level:
            return evaluation.epochs_spent, seconds
    return None


def _protocols(outcome: Outcome, patterns: Sequence[Pattern]) -> list[str]:
    """The protocols that runs of these patterns were re-scored with."""
    names = (run.run for pattern in patterns for run in pattern.runs)
    return sorted({outcome.rescored[name].protocol for name in names if name in outcome.rescored})


def _rescored(outcome: Outcome, run: RunRecord | None, protocol: str) -> float | None:
    again = outcome.rescored.get(run.run) if run else None
    return again.score if again and again.protocol == protocol else None
