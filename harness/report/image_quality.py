"""Tables of what real and generated images look like: outlines, colours, diversity."""

from typing import Any

from harness.records.sweep_results import QUALITIES, SweepResults, count_columns
from harness.report.table import Column, Table

COLUMNS = {
    "label": Column("images"),
    "runs": Column("runs"),
    "outlines": Column("outlines", 3),
    "colour": Column("colour", 1),
    "colourfulness": Column("colourfulness", 1),
    "diversity": Column("diversity", 1),
    "near_duplicates": Column("near-duplicates", 3),
    "nearest_training": Column("nearest training image", 1),
    "feature_count": Column("feature count, mean", 1),
    "feature_count_sd": Column("sd", 1),
}
"""Columns of the tables by that of the frame."""
NOTES = (
    "Outlines: their sharpness, 0.25 where edges are 4 pixels wide or more, 0.57 for steps, more "
    "for fine texture. Colour: chroma in grey levels, 0 for grey. Colourfulness: Hasler and "
    "Süsstrunk. Distances are RMS, in grey levels, at 32 by 32: diversity over all pairs; "
    "near-duplicates is the share of images with another nearer than 10; nearest training image "
    "well below that of real images (to other real ones) means copying.",
    "Feature counts are of images at the size they are trained at, so that real and "
    "generated ones compare; the groups were made from the originals.",
)


def quality_tables(results: SweepResults) -> list[Table]:
    """Return the qualities of real and generated images, one table for each data set."""
    tables = []
    for data, runs in results.frame.groupby("data", sort=False):
        variants = dict.fromkeys(map(results.variant, runs["record"]))
        rows: list[dict[str, Any]] = []
        for variant in variants:
            rows += _real_rows(results, variant, f" ({variant})" if len(variants) > 1 else "")
        measured = runs[runs["counts"] & runs["rescore_protocol"].notna()]
        for _, found in measured.groupby(["pattern", "protocol"], sort=False):
            # a run without the network's weights has no feature counts
            counts = found[["feature_count", "feature_count_sd"]].mean()
            means = {**found[QUALITIES].mean(skipna=False), **counts}
            rows.append({"label": found["label"].iloc[0], "runs": len(found), **means})
        cells = [[row.get(key) for key in COLUMNS] for row in rows]
        title = f"{data}: real and generated images"
        tables.append(Table(f"qualities-{data}", title, [*COLUMNS.values()], cells, NOTES))
    return [table for table in tables if table.rows]


def _real_rows(results: SweepResults, variant: str, which: str) -> list[dict[str, Any]]:
    """Return the qualities of the real images of a data set: all of them, and by group."""
    real = results.real_by_name.get(variant)
    if real is None:
        return []
    whole = {"label": f"real images{which}", **vars(real.qualities)}
    groups = [
        {"label": f"real images of group {number}{which}", **count_columns(counts)}
        for number, counts in real.group_counts.items()
    ]
    return [whole | count_columns(real.feature_counts), *groups]
