"""Tables of what a best of n leaves out: every seed, scatter, fresh scores, speed, pairs, metrics.

One table for each data set and score protocol; a score of another protocol gets a column of
its own, with the protocol as its heading.
"""

import re
from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pandas as pd

from harness.records.run_record import RunRecord
from harness.records.sweep_results import PAPER_MODES, Block, SweepResults, axis_value, dotted
from harness.report.paper_tables import readable
from harness.report.statistics import compare, step_down
from harness.report.table import Column, Table, Value

MEASURES = ("final_score", "fresh", "fresh_last", "epochs_to_peak", "images_to_peak")
"""Columns of the runs that are compared in pairs."""
DIFFERENCE = (
    *(Column("seeds"), Column("mean", None), Column("low", None), Column("high", None)),
    *(Column("p", 4), Column("corrected p", 4)),
)
"""Columns of a paired difference."""


def seed_tables(results: SweepResults, reach: float | None = None) -> list[Table]:
    """Return the tables of every data set and protocol that has finished runs.

    `reach` is the score to which epochs and seconds are counted; by default the highest that
    every finished run of the data set reached.
    """
    return [
        table
        for block in results.blocks()
        if not block.finished.empty
        for table in (
            seed_table(block),
            reach_table(block, reach),
            pair_table(block),
            metric_table(block),
        )
    ]


def seed_table(block: Block) -> Table:
    """Return the final score of every seed, its scatter, and the selection bias of best of n."""
    seeds = sorted(block.runs["seed"].unique())
    scores = block.by_seed("final_score").reindex(columns=seeds)
    finished, best = block.finished.groupby("pattern"), block.best
    protocols = sorted(block.runs["rescore_protocol"].dropna().unique())
    columns = [
        (Column("pattern"), block.patterns["label"]),
        *((Column(f"seed {seed}", 3), scores[seed]) for seed in seeds),
        (Column("mean", 3), finished["final_score"].mean()),
        (Column("sd", 3), finished["final_score"].std()),
        (Column("best of n", 3), best["final_score"]),
        (Column("fresh", 3), best["fresh"]),
        (Column("sd of draws", 3), best["fresh_sd"]),
        (Column("bias of evaluations", 3), best["final_score"] - best["fresh"]),
        (Column("mean of all fresh", 3), finished["fresh"].mean()),
        (Column("bias of seeds", 3), best["fresh"] - finished["fresh"].mean()),
        (Column("epochs to peak, mean"), finished["epochs_to_peak"].mean()),
        (Column("sd"), finished["epochs_to_peak"].std()),
        (Column("images to peak, mean"), finished["images_to_peak"].mean()),
        (Column("epochs spent, mean"), finished["epochs_spent"].mean()),
        *(
            (
                Column(f"best of n, {readable(name)}", 3),
                best["rescore"].where(best["rescore_protocol"] == name),
            )
            for name in protocols
        ),
    ]
    notes = [
        f"Final scores: {readable(block.protocol)}.",
        "Best of n: the highest best score of a whole run; its final score may be lower. Fresh: it "
        "again with new noise, mean and sd of several draws. Bias, what choosing added: of "
        "evaluations, best of n minus fresh; of seeds, that fresh minus the mean of all.",
    ]
    key = f"seeds-{block.data}{block.suffix}"
    return Table.of_columns(key, f"{block.data}: every seed", columns, notes)


def reach_table(block: Block, reach: float | None) -> Table:
    """Return epochs spent and training seconds until a score was first measured."""
    runs = block.finished.copy()
    sound = runs[~runs["collapsed"]]
    level = (runs if sound.empty else sound)["best_score"].min() if reach is None else reach
    runs[["epochs", "seconds"]] = [reached(run, level) or (np.nan,) * 2 for run in runs["record"]]
    points = runs.groupby("pattern")
    columns = [
        (Column("pattern"), block.best["label"]),
        (Column("finished runs"), points.size()),
        (Column("runs that reached it"), points["epochs"].count()),
        (Column("epochs spent"), points["epochs"].mean()),
        (Column("sd"), points["epochs"].std()),
        (Column("training seconds", 1), points["seconds"].mean()),
        (Column("sd", 1), points["seconds"].std()),
    ]
    return Table.of_columns(
        f"reach-{block.data}{block.suffix}",
        f"{block.data}: epochs and seconds to reach a score of {level:.3f}",
        columns,
        [
            f"Score: {readable(block.protocol)}. The level is the one asked for, or the highest "
            "that every finished run reached, collapsed ones left out. Epochs of early stages are "
            "shorter: they hold fewer images. Seconds count training alone, on the machine it ran "
            "on.",
        ],
    )


def reached(run: RunRecord, level: float) -> tuple[int, float] | None:
    """Return epochs spent and training seconds at the first evaluation of `level` or more."""
    batch = run.settings.get("training", {}).get("batch_size", 0)
    seconds, steps = 0.0, 0
    for evaluation in run.evaluations:
        seconds += (evaluation.steps - steps) * batch / max(evaluation.images_per_second, 1e-9)
        steps = evaluation.steps
        if evaluation.score >= level:
            return evaluation.epochs_spent, seconds
    return None


def pair_table(block: Block) -> Table:
    """Return the differences between comparable patterns, over the seeds both finished."""
    labels = block.patterns["label"]
    found, differences = [], []
    values_of = {column: block.by_seed(column) for column in MEASURES}
    for column, (a, b) in product(MEASURES, comparable(block.patterns)):
        values = values_of[column].reindex([a, b])
        if (pairs := values.dropna(axis=1)).size:
            differences.append(values.loc[a] - values.loc[b])
            difference = f"{labels[a]} minus {labels[b]}"
            found.append((column.replace("_", " "), difference, compare(*pairs.to_numpy())))
    corrected = step_down(pd.DataFrame(differences).sort_index(axis=1).to_numpy())
    rows = [
        [what, difference, c.pairs, c.mean, c.low, c.high, c.p, p, *c.improvement]
        for (what, difference, c), p in zip(found, corrected.tolist(), strict=True)
    ]
    probability = [Column(text, 2) for text in ("P(first is higher)", "P low", "P high")]
    columns = [Column("of"), Column("difference"), *DIFFERENCE, *probability]
    return Table(
        f"pairs-{block.data}{block.suffix}",
        f"{block.data}: paired differences, same seed and same start",
        columns,
        rows,
        [
            f"Score: {readable(block.protocol)}; fresh last: that of the end of training. Low, "
            "high: 95 % intervals by Student and, of P, Newcombe. p: exact sign flips; corrected "
            "for all rows by Westfall and Young's step-down.",
        ],
    )


def comparable(patterns: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of a block's patterns that may be compared.

    The two differ in one thing, the mode or an axis, or one of them is a mode of the paper at the
    sweep file's own settings: a baseline of all others. Grids may have different axes: a pattern
    without one has the file's own setting, which is read from its first run.
    """
    keys = {key for axes in patterns["axes"] for key, _ in axes}
    own = {
        key: axis_value(dict(dotted(run.settings)).get(key))
        for axes, run in zip(patterns["axes"], patterns["record"], strict=True)
        for key in keys - {*dict(axes)}
    }
    changes = [
        {("mode", mode), *(axis for axis in axes if axis not in own.items())}
        for mode, axes in zip(patterns["mode"], patterns["axes"], strict=True)
    ]
    baselines = [{("mode", mode)} for mode in PAPER_MODES]
    return [
        (patterns.index[i], patterns.index[j])
        for (i, a), (j, b) in combinations(enumerate(changes), 2)
        if len({key for key, _ in a ^ b}) == 1 or a in baselines or b in baselines
    ]


def metric_table(block: Block) -> Table:
    """Return the further metrics at the last stage's peak, as means over the finished runs."""
    runs, real = block.finished[block.finished["metrics"].astype(bool)], block.real
    last: dict[str, Value] = {}
    how = "; ".join(sorted({run.metrics_protocol for run in block.finished["record"]} - {""}))
    watched = {run.settings["stages"]["watch"] for run in runs["record"]}
    notes = [
        f"Means over runs, of the images of the score, at peaks of {' or '.join(sorted(watched))}. "
        f"How: {readable(how)}."
    ]
    means = _metric_means(runs, "metrics", "")
    if len(runs) and real and real.metrics and real.metrics_images:
        part, others = real.metrics_images
        again = _metric_means(runs, "metrics_as_real", f", {part:,} images")
        means = pd.concat([means, again], ignore_index=True)
        last = {"pattern": "real images", **_printed(real.metrics)}
        notes.append(
            f"Real images: {part:,} of them against the {others:,} others, as in the rows of "
            f"{part:,} images. FID, density and coverage depend on how many images are compared, "
            "KID does not in expectation."
        )
    for n, width in re.findall(r"FID .*n=(\d+) .*width=(\d+)", how):
        if int(n) < int(width):
            notes.append(
                f"Warning: FID of {int(n):,} images and {int(width):,} features: with fewer images "
                "than features the covariance is singular, and the distance far too large."
            )
    title = f"{block.data}: further metrics at the final score's evaluation"
    columns = [(Column(name, 0 if name == "runs" else 3), means[name]) for name in map(str, means)]
    return Table.of_columns(f"metrics-{block.data}{block.suffix}", title, columns, notes, last=last)


def _metric_means(runs: pd.DataFrame, column: str, ending: str) -> pd.DataFrame:
    """Return label, number of runs, and means of the metrics of each pattern that has them."""
    measured = runs[runs[column].str.len() > 0]
    numbers = pd.DataFrame([*map(_printed, measured[column])], measured.index)
    patterns = measured.groupby("pattern", sort=False)
    means = numbers.groupby(measured["pattern"], sort=False).agg(pd.Series.mean, skipna=False)
    means.insert(0, "pattern", patterns["label"].first() + ending)
    means.insert(1, "runs", patterns.size())
    return means


def _printed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by their headings; KID is printed times 1,000, as in the literature."""
    headings = {"kid": "KID x 1,000", "kid_sd": "its sd over subsets x 1,000"}
    return {
        headings.get(name, name): value * (1000 if name in headings else 1)
        for name, value in metrics.items()
    }
