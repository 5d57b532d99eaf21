"""The paper's tables for any grid: feature groups (2, 3), epochs and scores (4, 5), every run."""

import re

import numpy as np
import pandas as pd

from harness.records.sweep_results import Block, SweepResults
from harness.report.table import Column, Table, Value
from harness.sources.base import describe

NEAR = 5
"""Change of a feature count that another precision, such as bf16, may cause."""


def group_tables(results: SweepResults) -> list[Table]:
    """Return centroid, size and range of every feature group: tables 2 and 3."""
    tables = []
    places = results.data_sets
    for name, record in sorted(results.groups.items(), key=lambda item: places.index(item[1].data)):
        groups, by_count = record.groups, record.by == "feature_count"
        sizes = [group.size for group in groups]
        notes = [f"The largest group is {max(sizes) / max(min(sizes), 1):.1f} times the smallest."]
        if data := results.data.get(record.data):
            notes.append(
                f"{data.images:,} images; {data.rejected:,} rejected"
                + (f", {data.duplicates:,} duplicates" if data.duplicates else "")
                + (f"; {data.matched:,} matched the rule" if data.matched is not None else "")
                + (f"; files skipped: {describe(data.skipped)}" if data.skipped else "")
                + "."
            )
            if by_count and (weights := data.protocol.get("weights")):
                notes.append(f"Weights of the network that counts features: {weights}.")
        what = "positive features" if by_count else record.label
        near = record.split.near_boundaries(NEAR)
        crossing: list[Value] = [f"images within {NEAR} of the next group", *near, None, sum(near)]
        tables.append(
            Table(
                key=f"groups-{name}",
                title=f"{record.data}: feature groups by {record.title}",
                columns=[
                    Column(""),
                    *(Column(f"group {group.number}", record.digits) for group in groups),
                    Column("all", record.digits),
                ],
                rows=[
                    [f"centroid, {what}", *(group.centroid for group in groups), None],
                    ["lowest", *(group.lowest for group in groups), groups[0].lowest],
                    ["highest", *(group.highest for group in groups), groups[-1].highest],
                    ["images", *sizes, sum(sizes)],
                    *([crossing] if by_count else []),
                ],
                notes=notes,
            )
        )
    return tables


def score_tables(results: SweepResults) -> list[Table]:
    """Return epochs to peak and final score of each pattern's best run: tables 4 and 5."""
    return [score_table(block) for block in results.blocks()]


def score_table(block: Block) -> Table:
    """Return a table with a column for each mode, and a block of rows for each further axes."""
    runs = block.runs.groupby("pattern", sort=False)
    names = {"epochs_to_peak": "epochs to peak", "final_score": "final score"}
    names |= {"score_sd": "sd over splits"}
    real: dict[str, Value] = {}
    real_notes = []
    if block.real:
        names["score_as_real"] = f"score of {block.real.images:,} images"
        real[names["score_as_real"]] = block.real.score
        real_notes.append(
            f"Real images: {block.real.images:,} that the classifier was not trained on. The score "
            "rises with the number of images, so compare it with that of as many generated ones."
        )
    shown = block.best[[*names]].rename(columns=names).astype(object).reindex([*runs.groups])
    shown["finished runs"] = runs["counts"].sum().astype(object)
    shown["planned runs"] = runs["planned"].first().astype(object)
    shown = shown.where(shown.notna(), None)
    keys = list(dict.fromkeys(key for axes in block.runs["axes"] for key, _ in axes))
    rows: list[list[Value]] = []
    for axes, of_axes in block.by_axes():
        by_mode = dict(zip(of_axes["mode"], of_axes["pattern"], strict=True))
        # as text: no number of decimals suits 0.0001, true and 5,000 alike
        values = [None if v is None else str(v) for v in map(dict(axes).get, keys)]
        for what, cells in shown.items():
            of_modes = [cells.get(by_mode.get(mode)) for mode in block.modes]
            rows.append([*values, str(what), *of_modes, *([real.get(str(what))] if real else [])])
    left_out = block.runs[~block.runs["counts"]].groupby("outcome", sort=False)["name"]
    return Table(
        key=f"scores-{block.data}{block.suffix}",
        title=f"{block.data}: epochs to peak and final score, best of n",
        columns=[
            *map(Column, [*keys, ""]),
            *(Column(mode, 3) for mode in block.modes),
            *(Column("real images", 3) for _ in real),
        ],
        rows=rows,
        notes=[
            f"Score: {readable(block.protocol)}.",
            "Best of n: of the finished runs that differ in their seed alone, that with the "
            "highest best score of the whole run; its final score may be lower than another's.",
            *real_notes,
            *(f"Left out ({why}): {', '.join(names)}." for why, names in left_out),
        ],
    )


def run_tables(results: SweepResults) -> list[Table]:
    """Return every run of the sweep with its status."""
    return [run_table(block) for block in results.blocks()]


def run_table(block: Block) -> Table:
    """Return every run of a block: its peaks, epochs, scores and seconds."""
    runs = block.runs
    peaks = [
        {
            f"stage {number}, {what}": value
            for number, stage in enumerate(run.stages, 1)
            for what, value in (("peak", stage.peak_epoch), ("epochs", stage.epochs))
        }
        for run in runs["record"]
    ]
    by_stage = pd.DataFrame(peaks, runs.index)
    return Table.of_columns(
        f"runs-{block.data}{block.suffix}",
        f"{block.data}: every run",
        [
            (Column("run"), runs["name"] + np.where(runs["best"], " ★", "")),
            (Column("status"), runs["outcome"]),
            *((Column(name), by_stage[name]) for name in map(str, by_stage)),
            *(
                (Column(name.replace("_", " "), 3 if "score" in name else 0), runs[name])
                for name in ("epochs_to_peak", "epochs_spent", "final_score", "best_score")
            ),
            (Column("seconds"), runs["seconds"]),
        ],
        [f"Score: {readable(block.protocol)}.", "★ stands for its pattern: the best of n."],
    )


def readable(protocol: str) -> str:
    """Return a protocol with a name for the sweep's own classifier."""
    return re.sub(r"trained-cnn\d*-(\w+)", r"small CNN of this sweep (\1)", protocol)
