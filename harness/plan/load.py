"""Load a sweep file: parse, validate, and check every cell of its grid."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from featgan.errors import UserError
from harness.plan.checks import check_results, check_user_functions
from harness.plan.grid import Cell, expand, family
from harness.plan.settings import Method, Sweep
from harness.plan.yaml_file import explain, models_in, nearest, parse

Scale = Literal["full", "small"]
REPLACED = ("data", "grid")
"""Sections that `small` replaces; it is merged into the others."""


def load(path: Path | str, scale: Scale = "full") -> Sweep:
    """Return the sweep of a file, or its `small` form.

    Raises UserError with the file, the key, what is wrong and what would be right.
    """
    content = parse(Path(path))
    content.setdefault("name", Path(path).stem)
    small = content.pop("small", None)
    try:
        if scale == "small":
            content = _merged(content, small)
        sweep = Sweep.model_validate(content)
        keys = axis_keys()
        for key in (key for grid in sweep.grid for key in grid.axes):
            if key not in keys:
                raise UserError(f"grid.{key[:60]}: unknown key{nearest(key, keys)}")
        try:
            _check(sweep, expand(sweep))
        except ValidationError as error:
            raise UserError(f"grid: {explain(error, None, Method)}") from None
        if sweep.verdict.claims:
            tested = {test.partition(" on ")[0] for test in family(sweep)}
            for claim in sweep.claims:
                if claim.text not in tested:
                    raise UserError(
                        f"verdict.claims: {claim.text}: no two runs of a seed differ in this "
                        "alone; name all that they differ in, or take it out if another claim "
                        "asks the same"
                    )
        check_results(sweep)
        check_user_functions(sweep)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, content, Sweep)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return sweep


def axis_keys() -> list[str]:
    """Return every key that can be an axis of the grid, such as `groups.k`."""
    keys = []
    for name, field in Method.model_fields.items():
        sections = models_in(field.annotation)
        keys += [f"{name}.{key}" for key in sections[0].model_fields] if sections else [name]
    return keys


def _merged(content: dict[str, Any], small: Any) -> dict[str, Any]:
    """A file's content with its section `small` merged into it key by key."""
    if not isinstance(small, dict):
        raise UserError("--scale small: the file has no section `small`; add one")
    merged, name = dict(content), content["name"]
    if isinstance(name, str) and name:  # else validation refuses it, as in the full form
        merged["name"] = f"{name}-small"
    for key, value in small.items():
        before = content.get(key)
        if key not in REPLACED and isinstance(before, dict) and isinstance(value, dict):
            value = before | value
        merged[key] = value
    return merged


def _check(sweep: Sweep, cells: list[Cell]) -> None:
    """Check rules that concern a cell and the rest of the file; UserError for a broken one."""
    for cell in cells:
        score = cell.method.score
        labelled = [("score.trained_on", name) for name in score.trained_on or []]
        if cell.method.gan.conditional:
            labelled.append(("gan.conditional", cell.data))
        for key, name in labelled:
            if name not in sweep.data:
                raise UserError(f"{key}: there is no data set {name!r} in `data`")
            if not sweep.data[name].has_labels:
                raise UserError(
                    f"{key}: data.{name} has no labels; if each class has a folder, add "
                    "`labels: folder` to it (to Parquet `label: COLUMN`), or name data sets that "
                    "have labels"
                )
        if score.classifier == "trained" and not score.trained_on:
            raise UserError("score.trained_on: name the data sets whose labels train a classifier")
        steps = cell.method.training.epoch_steps
        if cell.method.pacing.grow != "none" and not (cell.mode == "conventional" and steps):
            raise UserError(
                "pacing.grow: is for mode conventional with training.epoch_steps, so that all arms "
                f"train for as many steps, not for mode {cell.mode} with epoch_steps {steps}"
            )
        ordered = cell.mode in ("ascending", "descending") and cell.method.pacing.by == "none"
        if cell.method.stages.rank != "none" and not (ordered or cell.mode == "conventional"):
            raise UserError("stages.rank: is for modes ascending and descending, without pacing")
        data = sweep.data[cell.data]
        sets = [data, *(sweep.data[name] for name in {*(score.trained_on or ())} - {cell.data})]
        differ = any(of.corrupt and (of.corrupt.blur or of.corrupt.jpeg) for of in sets)
        differ |= len({of.held_out for of in sets}) > 1
        if data.held_out and len(sets) > 1 and differ:
            raise UserError(
                f"data.{cell.data}.held_out: the data sets of score.trained_on need the same, and "
                "neither blur nor JPEG, or the classifier is trained on images that are held out"
            )
        if data.corrupt and data.corrupt.labels and not cell.method.gan.conditional:
            raise UserError(f"data.{cell.data}.corrupt.labels: needs gan.conditional: true")
    if sweep.pilot is None:
        return
    comparable = {(cell.data, cell.method.score.model_dump_json()) for cell in cells}
    if len(comparable) > 1 or {cell.mode for cell in cells} != {"conventional"}:
        raise UserError(
            "pilot: stops runs by comparing their scores, so the grid must hold conventional "
            "runs of one data set and one score alone"
        )
    shortest = min(stage.epochs for cell in cells for stage in cell.stages)
    if sweep.pilot.grace >= shortest:
        raise UserError(
            f"pilot.grace: no run of {shortest} epochs can be stopped after "
            f"{sweep.pilot.grace}; lower it"
        )
