"""Tables of what real and generated images look like: outlines, colours, diversity."""

from __future__ import annotations

from harness.records.sweep_records import CountStatistics
from harness.records.sweep_results import SweepResults
from harness.report.statistics import mean
from harness.report.table import Column, Table, Value

QUALITIES = {
    "sharpness": Column("outline sharpness", 2),
    "saturation": Column("saturation", 3),
    "colourfulness": Column("colourfulness", 1),
    "diversity": Column("diversity", 1),
    "near_duplicates": Column("near-duplicates", 3),
    "nearest_training": Column("nearest training image", 1),
}
COUNTS = {"feature_count": Column("feature count, mean", 1), "feature_count_sd": Column("sd", 1)}
NOTES = (
    "Sharpness: RMS gradient of the luminance, in grey levels a pixel. Saturation: HSV, "
    "0 to 1. Colourfulness: Hasler and Süsstrunk. Distances are RMS, in grey levels, at "
    "32 by 32: diversity over all pairs; near-duplicates is the share of images with "
    "another nearer than 10; nearest training image well below that of real images "
    "(to other real ones) means copying.",
    "Feature counts are of images at the size they are trained at, so that real and "
    "generated ones compare; the groups were made from the originals.",
)


def quality_tables(results: SweepResults) -> list[Table]:
    """Return the qualities of real and generated images, one table for each data set."""
    tables = []
    for data, runs in results.frame.groupby("data", sort=False):
        variants = dict.fromkeys(map(results.variant, runs["record"]))
        rows: list[list[Value]] = []
        for variant in variants:
            rows += _real_rows(results, variant, f" ({variant})" if len(variants) > 1 else "")
        measured = runs[runs["counts"] & runs["rescored"].notna()]
        for _, found in measured.groupby(["pattern", "protocol"], sort=False):
            qualities = [mean(found[name]) for name in QUALITIES]
            counts = [mean(found[name].dropna()) for name in COUNTS]
            rows.append([found["label"].iloc[0], len(found), *qualities, *counts])
        columns = [*map(Column, ("images", "runs")), *QUALITIES.values(), *COUNTS.values()]
        title = f"{data}: real and generated images"
        tables.append(Table(f"qualities-{data}", title, columns, rows, NOTES))
    return [table for table in tables if table.rows]


def _real_rows(results: SweepResults, variant: str, which: str) -> list[list[Value]]:
    """Return the qualities of the real images of a data set: all of them, and by group."""
    real = results.real.get(variant)
    if real is None:
        return []
    numbers = [getattr(real.qualities, name) for name in QUALITIES]
    gaps = [None] * len(QUALITIES)
    return [
        [f"real images{which}", None, *numbers, *_counts(real.feature_counts)],
        *(
            [f"real images of group {number}{which}", None, *gaps, *_counts(counts)]
            for number, counts in real.group_counts.items()
        ),
    ]


def _counts(counts: CountStatistics | None) -> list[Value]:
    return [counts.mean, counts.sd] if counts else [None, None]
