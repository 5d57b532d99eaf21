"""Check user-defined functions and required files before a sweep starts."""

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec

from featgan.errors import INSTALL, UserError
from featgan.user_code import resolve
from harness.plan.grid import expand
from harness.plan.settings import Sweep

JOB_COPIES = "/runtime_resources/working_dir_files/"
"""Where Ray puts the copy of the working folder that a submitted job runs in."""
NEEDS = {
    "torch_fidelity": ("inception", r'"classifier":"inception"'),
    "timm": ("timm", r'"features":"(dinov2|clip)[^"]*"'),
    "h5py": ("keras", r'"weights":"[^"]*\.(h5|hdf5)"'),
    "s3fs": ("s3", r'"s3a?://'),
    "gcsfs": ("gs", r'"gs://'),
    "huggingface_hub": ("hf", r'"hf://'),
}
"""Packages with the optional part of featgan that has them, and the settings that need them."""


def check_environment(sweep: Sweep, files: Sequence[str]) -> None:
    """Raise UserError for a package or a file that the sweep needs and this machine lacks."""
    methods = [cell.method.model_dump_json() for cell in expand(sweep)]
    text = " ".join([sweep.model_dump_json(include={"results", "data"}), *methods])
    for package, (part, use) in NEEDS.items():
        if (found := re.search(use, text)) and find_spec(package) is None:
            setting = found[0].replace('"', "")
            raise UserError(f"{setting} needs {package}, which is missing: {INSTALL.format(part)}")
    for file in files:
        if not os.path.exists(os.path.expanduser(file)):
            raise UserError(f"there is no file or folder {file}")


def check_user_functions(sweep: Sweep) -> None:
    """Import each `module:function` of the sweep's cells; UserError for one that is missing."""
    cells = expand(sweep)
    values = {of.by for cell in cells for of in (cell.method.groups, cell.method.select)}
    names = values.union(*(cell.functions for cell in cells))
    for name in sorted(name for name in names if ":" in name):
        resolve(name, {})


def check_results(sweep: Sweep) -> None:
    """Raise UserError if figures would become images of a data set, or results would be removed."""
    kind, _, path = sweep.results.rpartition("://")
    if kind not in ("", "file", "local"):
        return
    results = os.path.realpath(os.path.expanduser(path))
    if JOB_COPIES in results:
        raise UserError(
            f"results: {sweep.results} is relative, and a job's copy of the working folder ends "
            "with the job; give an absolute path that all nodes see, or s3://bucket/folder"
        )
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
