"""What a sweep needs beside its file: functions of one's own, and files that nodes must see.

Both commands look for them before anything is counted or trained.
"""

from __future__ import annotations

import os

from featgan.errors import UserError
from featgan.user_code import resolve
from harness.plan.settings import Sweep


def look_up_functions(sweep: Sweep) -> None:
    """Import each `module:function` of the sweep's cells; UserError for one that is not there."""
    cells = sweep.cells()
    for name in {name for c in cells for name in (*c.named, c.method.groups.by) if ":" in name}:
        resolve(name, {})


def refuse_results_among_images(sweep: Sweep) -> None:
    """UserError where the sweep would write its figures and samples into a folder of images.

    They would be images of the data set at its next start.
    """
    kind, _, path = sweep.results.rpartition("://")
    if kind not in ("", "file", "local"):
        return
    results = os.path.realpath(os.path.expanduser(path))
    for name, source in sweep.data.items():
        for folder in map(os.path.realpath, source.searched()):
            if os.path.commonpath((folder, results)) == folder:
                raise UserError(
                    f"results: {results} lies in {folder}, where data.{name} looks for images: "
                    "what the sweep draws would be among them; give another folder"
                )


def files(sweep: Sweep) -> list[str]:
    """What every node must see besides the storage: data sets, the judges' weights."""
    scores = [cell.method.score for cell in sweep.cells()]
    return [*image_files(sweep), *dict.fromkeys(s.weights for s in scores if s.weights)]


def image_files(sweep: Sweep) -> list[str]:
    """Of these, where images come from: tables are read by the sweep's driver alone."""
    return [file for source in sweep.data.values() for file in source.files()]
