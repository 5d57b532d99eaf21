"""Check user-defined functions and required files before a sweep starts."""

import os

from featgan.errors import UserError
from featgan.user_code import resolve
from harness.plan.grid import expand
from harness.plan.settings import Sweep


def check_user_functions(sweep: Sweep) -> None:
    """Import each `module:function` of the sweep's cells; UserError for one that is missing."""
    cells = expand(sweep)
    names = {name for cell in cells for name in (*cell.functions, cell.method.groups.by)}
    for name in sorted(name for name in names if ":" in name):
        resolve(name, {})


def refuse_results_among_images(sweep: Sweep) -> None:
    """Raise UserError if figures and samples would be written into a folder of images.

    The next start would take them for images of the data set.
    """
    kind, _, path = sweep.results.rpartition("://")
    if kind not in ("", "file", "local"):
        return
    results = os.path.realpath(os.path.expanduser(path))
    for name, source in sweep.data.items():
        for folder in map(os.path.realpath, source.files()):
            if os.path.commonpath((folder, results)) == folder:
                raise UserError(
                    f"results: {results} lies in {folder}, where data.{name} looks for images; "
                    "give another folder, or figures would become images of the data set"
                )


def required_files(sweep: Sweep) -> list[str]:
    """Return files that every node must read: of data sets, and weights of classifiers."""
    scores = [cell.method.score for cell in expand(sweep)]
    return [*image_files(sweep), *dict.fromkeys(file for score in scores for file in score.files)]


def image_files(sweep: Sweep) -> list[str]:
    """Return the files and folders that hold images; only the driver reads tables of values."""
    return [file for source in sweep.data.values() for file in source.files()]
