"""What a sweep needs beside its file: functions of one's own, and files that nodes must see.

Both commands look for them before anything is counted or trained.
"""

from __future__ import annotations

from featgan.extension import resolve
from harness.config import Sweep


def look_up_functions(sweep: Sweep) -> None:
    """Import each `module:function` of the sweep's cells; UserError for one that is not there."""
    cells = sweep.cells()
    for name in {name for c in cells for name in (*c.named, c.method.groups.by) if ":" in name}:
        resolve(name, {})


def files(sweep: Sweep) -> list[str]:
    """What every node must see besides the storage: data sets, tables, a classifier's weights."""
    return [*image_files(sweep), *([sweep.score.weights] if sweep.score.weights else [])]


def image_files(sweep: Sweep) -> list[str]:
    """Of these, what images and their values come from."""
    sources = [file for source in sweep.data.values() for file in source.files()]
    groups = [cell.method.groups for cell in sweep.cells()]
    tables = dict.fromkeys(g.table for g in groups if g.by == "table" and g.table)
    return [*sources, *(table for table in tables if "://" not in table)]
