"""How near images lie to the boundaries of their groups, as a table."""

from __future__ import annotations

from featgan.features.groups import FeatureGroups
from harness.report.table import Column, Table, Value

NEAR = (1, 5, 20)
"""Distances in counts of the boundary report: a kernel's rounding, bf16's, another crop's."""


def boundary_table(title: str, groups: FeatureGroups) -> Table:
    """How many images would change their group if their count changed by a little."""
    images = sum(groups.histogram.values())
    near = {within: groups.near_boundaries(within) for within in NEAR}
    rows: list[list[Value]] = [
        [
            f"{before.number} | {after.number}",
            f"{before.highest} | {after.lowest}",
            *(f"{near[w][row]} ({near[w][row] / images:.1%})" for w in NEAR),
        ]
        for row, (before, after) in enumerate(zip(groups.groups, groups.groups[1:], strict=False))
    ]
    columns = ["groups", "counts", *(f"images within {w}" for w in NEAR)]
    return Table("boundaries", f"Near a boundary: {title}", [*map(Column, columns)], rows)
