"""The paper's tables for any grid: feature groups (2, 3), epochs and scores (4, 5), every run."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from harness.records.sweep_results import Axes, Block, SweepResults
from harness.report.table import Table
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
        columns = {
            "": [f"centroid, {what}", "lowest", "highest", "images"],
            **{f"group {g.number}": [g.centroid, g.lowest, g.highest, g.size] for g in groups},
            "all": [None, groups[0].lowest, groups[-1].highest, sum(sizes)],
        }
        frame = pd.DataFrame(columns, dtype=object)
        if by_count:
            near = record.split.near_boundaries(NEAR)
            within = f"images within {NEAR} of the next group"
            frame.loc[len(frame)] = [within, *near, None, sum(near)]
        title = f"{record.data}: feature groups by {record.title}"
        digits = dict.fromkeys(columns, record.digits)
        tables.append(Table(f"groups-{name}", title, frame, notes, digits))
    return tables


def score_table(block: Block) -> Table:
    """Return epochs to peak and final score of each pattern's best run: tables 4 and 5.

    A column for each mode, and rows of their own for each further axes.
    """
    names = {"epochs_to_peak": "epochs to peak", "final_score": "final score"}
    names |= {"score_sd": "sd over splits"}
    notes = [
        "Best of n: of the finished runs that differ in their seed alone, that with the highest "
        "best score of the whole run; its final score may be lower than another's."
    ]
    if block.real:
        names["score_as_real"] = f"score of {block.real.images:,} images"
        notes.append(
            f"Real images: {block.real.images:,} that the classifier was not trained on. The score "
            "rises with the number of images, so compare it with that of as many generated ones."
        )
    shown = block.best[[*names]].rename(columns=names).astype(object).reindex(block.patterns.index)
    shown["finished runs"] = block.runs.groupby("pattern")["counts"].sum().astype(object)
    keys = list(dict.fromkeys(key for axes in block.runs["axes"] for key, _ in axes))
    parts = []
    for axes, patterns in block.patterns.groupby("axes", sort=False):
        part = shown.loc[patterns.index].set_axis(patterns["mode"]).T.reindex(columns=block.modes)
        # as text: no number of decimals suits 0.0001, true and 5,000 alike
        values = {key: str(value) for key, value in cast(Axes, axes) if value is not None}
        part.insert(0, "", part.index)
        for place, key in enumerate(keys):
            part.insert(place, key, values.get(key))
        parts.append(part)
    frame = pd.concat(parts)
    if block.real:
        frame.loc[frame[""] == names["score_as_real"], "real images"] = block.real.score
    return block_table(block, "scores", "epochs to peak and final score, best of n", frame, notes)


def run_table(block: Block) -> Table:
    """Return every run of a block: its peaks, epochs, scores and seconds."""
    runs = block.runs
    peaks = [
        {
            f"stage {number}, {what.removesuffix('_epoch')}": getattr(stage, what)
            for number, stage in enumerate(run.stages, 1)
            for what in ("peak_epoch", "epochs", "moved")
            if what != "moved" or stage.moved is not None
        }
        for run in runs["record"]
    ]
    by_stage = pd.DataFrame(peaks, runs.index, dtype="Int64")
    seen = ["images_to_peak", "images_seen"]
    columns = ["epochs_to_peak", "epochs_spent", *seen, "final_score", "best_score", "seconds"]
    numbers = runs[columns]
    frame = pd.concat([by_stage, numbers.rename(columns=lambda c: c.replace("_", " "))], axis=1)
    frame.insert(0, "run", runs["name"] + np.where(runs["best"], " ★", ""))
    frame.insert(1, "status", runs["outcome"])
    notes = [
        "★ stands for its pattern: the best of n. At the peak of the last stage a run had trained "
        "on `images to peak`, counting repetitions, of which `images seen` are different images."
    ]
    digits = {"seconds": 0, "images seen": 0}
    return block_table(block, "runs", "every run", frame, notes, digits)


def block_table(
    block: Block,
    kind: str,
    what: str,
    frame: pd.DataFrame,
    notes: Sequence[str] = (),
    digits: Mapping[str, int | None] | None = None,
) -> Table:
    """Return a table of a block's runs; its first note is what a score is."""
    key, title = f"{kind}-{block.data}{block.suffix}", f"{block.data}: {what}"
    return Table(key, title, frame, [f"Score: {readable(block.protocol)}.", *notes], digits or {})


def readable(protocol: str) -> str:
    """Return a protocol with a name for the sweep's own classifier."""
    return re.sub(r"trained-cnn\d*-(\w+)", r"small CNN of this sweep (\1)", protocol)
