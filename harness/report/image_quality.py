"""Tables of what real and generated images look like: outlines, colours, diversity."""

from typing import Any

import pandas as pd

from harness.records.sweep_results import QUALITIES, SweepResults, count_columns
from harness.report.table import Table

COLUMNS = ["label", "runs", *QUALITIES, "feature_count", "feature_count_sd"]
NOTES = (
    "Outlines: their sharpness, 0.25 where edges are 4 pixels wide or more, 0.57 for steps, more "
    "for fine texture. Colour: chroma in grey levels, 0 for grey. Colourfulness: Hasler and "
    "Süsstrunk. Distances are RMS, in grey levels, at 32 by 32: diversity over all pairs; "
    "near duplicates is the share of images with another nearer than 10; nearest training, the "
    "distance to the nearest training image, well below that of real images (to other real ones) "
    "means copying.",
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
            which = f" ({variant})" if len(variants) > 1 else ""
            if real := results.real_by_name.get(variant):
                whole = vars(real.qualities) | count_columns(real.feature_counts)
                rows.append({"label": f"real images{which}", **whole})
                rows += [
                    {"label": f"real images of group {number}{which}", **count_columns(counts)}
                    for number, counts in real.group_counts.items()
                ]
        measured = runs[runs["counts"] & runs["rescore_protocol"].notna()]
        for _, found in measured.groupby(["pattern", "protocol"], sort=False):
            means = found[COLUMNS[2:]].mean(skipna=False)
            rows.append({"label": found["label"].iloc[0], "runs": len(found), **means})
        title = f"{data}: real and generated images"
        frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
        frame.columns = ["images", *frame.columns[1:].str.replace("_", " ")]
        digits = dict.fromkeys(map(str, frame), 1) | {"outlines": 3, "near duplicates": 3}
        tables.append(Table(f"qualities-{data}", title, frame, NOTES, digits))
    return tables
