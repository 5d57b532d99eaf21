"""Tables of what a best of n leaves out: every seed, scatter, fresh scores, speed, pairs, metrics.

One table for each data set and score protocol; a score of another protocol gets a column of
its own, with the protocol as its heading.
"""

import re
from itertools import combinations

import numpy as np
import pandas as pd

from featgan.settings import as_shown
from harness.records.run_record import RunRecord
from harness.records.sweep_results import PAPER_MODES, Block, SweepResults, dotted
from harness.report.paper_tables import block_table, readable
from harness.report.statistics import compare, improvement, step_down
from harness.report.table import Table

MEASURES = ("final_score", "fresh", "fresh_last", "epochs_to_peak", "images_to_peak")
"""Columns of the runs that are compared in pairs."""
DIFFERENCE = ("pairs", "mean", "low", "high", "p", "corrected")
"""Fields of a paired difference that are columns."""
HEADINGS = {"pairs": "seeds", "corrected": "corrected p"}
"""Headings of those that have another name there."""
PROBABILITY = ("P(first is higher)", "P low", "P high")
KID = {"kid": "KID x 1,000", "kid_sd": "its sd over subsets x 1,000"}
"""Headings of the metrics that are shown times 1,000, as in the literature."""
DIGITS = {
    **dict.fromkeys(("mean", "low", "high")),
    **dict.fromkeys(("p", "corrected p"), 4),
    **dict.fromkeys(PROBABILITY, 2),
}
"""Decimals of a table of paired differences."""


def seed_tables(results: SweepResults, reach: float | None = None) -> list[Table]:
    """Return the tables of every data set and protocol that has finished runs.

    `reach` is the score to which epochs and seconds are counted; by default the highest that
    every finished run of the data set reached.
    """
    tables = []
    for block in results.blocks():
        if not block.finished.empty:
            tables += [seed_table(block), reach_table(block, reach)]
            tables += [pair_table(block), metric_table(block), further_table(block)]
    return tables


def seed_table(block: Block) -> Table:
    """Return the final score of every seed, its scatter, and the selection bias of best of n."""
    seeds = sorted(block.runs["seed"].unique())
    scores = block.by_seed("final_score").reindex(columns=seeds)
    finished, best = block.finished.groupby("pattern"), block.best
    columns = {
        "pattern": block.patterns["label"],
        **{f"seed {seed}": scores[seed] for seed in seeds},
        "mean": finished["final_score"].mean(),
        "sd": finished["final_score"].std(),
        "best of n": best["final_score"],
        "fresh": best["fresh"],
        "sd of draws": best["fresh_sd"],
        "bias of evaluations": best["final_score"] - best["fresh"],
        "mean of all fresh": finished["fresh"].mean(),
        "bias of seeds": best["fresh"] - finished["fresh"].mean(),
    }
    epochs = {
        "epochs to peak, mean": finished["epochs_to_peak"].mean(),
        "epochs to peak, sd": finished["epochs_to_peak"].std(),
        "images to peak, mean": finished["images_to_peak"].mean(),
        "epochs spent, mean": finished["epochs_spent"].mean(),
    }
    rescored = best.groupby("rescore_protocol")["rescore"]
    others = {f"best of n, {readable(str(name))}": scores for name, scores in rescored}
    frame = pd.DataFrame({**columns, **epochs, **others}, block.patterns.index)
    notes = [
        "Best of n: the highest best score of a whole run; its final score may be lower. Fresh: it "
        "again with new noise, mean and sd of several draws. Bias, what choosing added: of "
        "evaluations, best of n minus fresh; of seeds, that fresh minus the mean of all.",
    ]
    return block_table(block, "seeds", "every seed", frame, notes, dict.fromkeys(epochs, 0))


def reach_table(block: Block, reach: float | None) -> Table:
    """Return epochs spent and training seconds until a score was first measured."""
    runs = block.finished.copy()
    sound = runs[~runs["collapsed"]]
    level = (runs if sound.empty else sound)["best_score"].min() if reach is None else reach
    runs[["epochs", "seconds"]] = [reached(run, level) or (np.nan,) * 2 for run in runs["record"]]
    points = runs.groupby("pattern")
    columns = {
        "pattern": block.best["label"],
        "finished runs": points.size(),
        "runs that reached it": points["epochs"].count(),
        "epochs spent": points["epochs"].mean(),
        "sd of epochs": points["epochs"].std(),
        "training seconds": points["seconds"].mean(),
        "sd of seconds": points["seconds"].std(),
    }
    frame = pd.DataFrame(columns, block.best.index)
    digits = {"epochs spent": 0, "sd of epochs": 0, "training seconds": 1, "sd of seconds": 1}
    what = f"epochs and seconds to reach a score of {level:.3f}"
    notes = [
        "The level is the one asked for, or the highest that every finished run reached, collapsed "
        "ones left out. Means are of the runs that reached it: too low if some did not. Epochs of "
        "early stages hold fewer images. Seconds count training alone, on the machine it ran on."
    ]
    return block_table(block, "reach", what, frame, notes, digits)


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
    rows, differences = [], []
    for column in MEASURES:
        of_column = block.by_seed(column)
        for a, b in comparable(block.patterns):
            values = of_column.reindex([a, b])
            if (pairs := values.dropna(axis=1)).size:
                difference, of = values.iloc[0] - values.iloc[1], column.replace("_", " ")
                names = {"of": of, "difference": f"{labels[a]} minus {labels[b]}"}
                chance = dict(zip(PROBABILITY, improvement(*pairs.to_numpy()), strict=True))
                rows.append(names | vars(compare(difference.dropna())) | chance)
                differences.append(difference)
    columns = ["of", "difference", *DIFFERENCE, *PROBABILITY]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    frame["corrected"] = step_down(pd.DataFrame(differences).sort_index(axis=1).to_numpy())
    notes = [
        "Fresh last: that of the end of training. Low, high: 95 % intervals by Student and, of P, "
        "Newcombe. p: sign flips, exact to 20 seeds; corrected for all by Westfall and Young's "
        "step-down. A diverged run counts as 1 in fresh scores; its other values are left out."
    ]
    what = "paired differences, same seed and same start"
    return block_table(block, "pairs", what, frame.rename(columns=HEADINGS), notes, DIGITS)


def comparable(patterns: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of a block's patterns that may be compared.

    The two differ in one thing, the mode or an axis, or one of them is a mode of the paper at the
    sweep file's own settings: a baseline of all others. Grids may have different axes: a pattern
    without one has the file's own setting, which is read from its first run.
    """
    keys = {key for axes in patterns["axes"] for key, _ in axes}
    own = {
        key: as_shown(dict(dotted(run.settings)).get(key))
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
    protocols = {run.metrics_protocol for run in runs["record"]}
    how = "; ".join(sorted(protocols))
    watched = {run.settings["stages"]["watch"] for run in runs["record"]}
    notes = [
        f"Means over runs, of the images of the score, at peaks of {' or '.join(sorted(watched))}. "
        f"How: {readable(how)}."
    ]
    parts = [_metric_means(runs, "metrics", "")]
    if real and protocols == {real.metrics_protocol} and real.metrics_images:
        part, others = real.metrics_images
        parts.append(_metric_means(runs, "metrics_as_real", f", {part:,} images"))
        parts.append(pd.DataFrame([{"pattern": "real images", **real.metrics}]))
        notes.append(
            f"Real images: {part:,} {'held out' if real.held_out else 'of them'} against the "
            f"{others:,} others, as in the rows of {part:,} images. FID, density and coverage "
            "depend on how many images are compared, KID does not in expectation."
        )
    for n, width in re.findall(r"FID .*n=(\d+) .*width=(\d+)", how):
        if int(n) < int(width):
            notes.append(
                f"Warning: FID of {int(n):,} images and {int(width):,} features: with fewer images "
                "than features the covariance is singular, and the distance far too large."
            )
    what = "further metrics at the final score's evaluation"
    frame = pd.concat(parts, ignore_index=True)[[*parts[0]]]
    frame[[*frame.columns.intersection([*KID])]] *= 1000
    return block_table(block, "metrics", what, frame.rename(columns=KID), notes)


def further_table(block: Block) -> Table:
    """Return the metrics that were measured later: a column for each number and protocol."""
    without = ", ".join(block.finished["name"][~block.finished["further"].astype(bool)])
    notes = [f"KID as it is, not times 1,000. Not measured: {without or 'none'}."]
    frame = _metric_means(block.finished, "further", "")
    return block_table(block, "further", "metrics measured later", frame, notes)


def _metric_means(runs: pd.DataFrame, column: str, ending: str) -> pd.DataFrame:
    """Return label, number of runs, and means of the metrics of each pattern that has them."""
    measured = runs[runs[column].str.len() > 0]
    names = measured["label"].rename("pattern") + ending
    patterns = pd.DataFrame([*measured[column]], names.index).groupby(names, sort=False)
    means = patterns.mean(skipna=False)
    means.insert(0, "runs", patterns.size().astype(object))
    return means.reset_index()
