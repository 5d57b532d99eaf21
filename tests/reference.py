"""The page docs/sweep-file.md, made from the settings: `python tests/reference.py` prints it."""

import inspect
import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.plan.settings import Sweep
from harness.plan.yaml_file import models_in
from harness.sources.corrupt import Corruption

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def reference() -> str:
    """Return the page as Markdown."""
    parts = ["# The sweep file\n\nGenerated from the settings classes by `make docs`.\n"]
    parts += [f"{inspect.getdoc(Sweep)}\n\n## The file\n", _table(Sweep)]
    for name, field in Sweep.model_fields.items():
        if len(models := models_in(field.annotation)) == 1:
            parts += [f"## `{name}`\n", f"{inspect.getdoc(models[0])}\n", _table(models[0])]
    parts.append("## A data set: an entry of `data`\n")
    for model in models_in(Sweep.model_fields["data"].annotation):
        (tag,) = typing.get_args(model.model_fields["source"].annotation)
        parts += [f"### `source: {tag}`\n", f"{inspect.getdoc(model)}\n", _table(model)]
    parts += ["### `corrupt`\n", f"{inspect.getdoc(Corruption)}\n", _table(Corruption)]
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        bounds = [
            f", {sign} {getattr(mark, bound)}"
            for mark in field.metadata
            for bound, sign in BOUNDS.items()
            if hasattr(mark, bound)
        ]
        meaning = " ".join((field.description or "").split())
        default = "the file's name" if name == "name" else _default(field)
        cells = (f"`{name}`", _type(field.annotation) + "".join(bounds), default, meaning)
        if name != "source":  # in the heading
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return f"mapping of names to {_type(inner[1])}"
    models = models_in(annotation)
    if len(models) > 1:
        return "a data set"
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " | ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type, inner))
    if origin is list:
        return "section, or list of sections" if models else f"list of {_type(inner[0])}"
    return WORDS.get(annotation, "section")


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "*required*"
    first = default[0] if isinstance(default, list) and default else default
    if isinstance(first, BaseModel):
        return "see there"
    return "`null`" if default is None else f"`{str(default).lower()}`"


if __name__ == "__main__":
    print(reference(), end="")
