"""`docs/sweep-file.md` from the schema: `python -m harness.reference > docs/sweep-file.md`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from featgan.settings import Settings
from harness.plan.settings import Sweep
from harness.sources import base

INTRODUCTION = """\
# The sweep file

Generated from the schema by `make docs`; every key, its type, default and meaning.

A sweep file is YAML. It is checked as a whole before anything starts: an unknown key, a wrong
type or an impossible value is one line naming the file, the key and what would be right, and
exit code 2. `python harness/sweep.py FILE --dry-run` prints the file as it was understood.

Paths are relative to the folder the command is started in. A key written with dots, such as
`groups.k`, can be an axis of the `grid`; a list of grids gives the cells of all of them.

Where `module:function` may stand, it names a function of your own, in a module in the folder
the command is started in, or installed; its source is part of the signature of the runs.

A section `small` holds what `--scale small` puts in place of the rest: sections are merged key
by key, `data` and `grid` are replaced, and the sweep's name gets `-small`.
"""


def reference() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION, "## The file\n", _table(Sweep)]
    for name, model in _sections(Sweep, ""):
        parts += [f"## `{name}`\n", f"{_first(model)}\n", _table(model)]
    parts.append("## A data set: an entry of `data`\n")
    for model in _models(base.SourceSettings):
        tag = typing.get_args(model.model_fields["source"].annotation)[0]
        parts += [f"### `source: {tag}`\n", f"{_first(model)}\n", _table(model, skip=("source",))]
    return "\n".join(parts)


def _sections(model: type[Settings], prefix: str) -> Iterator[tuple[str, type[Settings]]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if typing.get_origin(inner) in (list, types.UnionType) and len(_models(inner)) == 1:
            (inner,) = _models(inner)
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield prefix + name, inner
            yield from _sections(inner, f"{prefix}{name}.")


def _models(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _table(model: type[Settings], skip: tuple[str, ...] = ()) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field)} | {_default(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(mark, attribute)}"
        for mark in field.metadata
        for kind, sign, attribute in (
            (Ge, "≥", "ge"),
            (Gt, ">", "gt"),
            (Le, "≤", "le"),
            (Lt, "<", "lt"),
        )
        if isinstance(mark, kind)
    ]
    return ", ".join([_spelled(field.annotation), *bounds])


def _spelled(annotation: Any) -> str:
    """A type in a user's words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _spelled(inner[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        if len(_models(annotation)) > 1:
            return "a data set"
        return " or ".join(_spelled(part) for part in inner)
    if origin is list and _models(annotation):
        return "section, or list of sections"
    if origin is list:
        return f"list of {_spelled(inner[0])}"
    if origin is dict:
        return f"mapping of names to {_spelled(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "section"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return words.get(annotation, "null" if annotation is type(None) else "value")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    if isinstance(field.default, Settings | list) and _models(field.annotation):
        return "see there"
    return f"`{'null' if field.default is None else field.default}`".replace("|", "\\|")


def _first(model: type[Settings]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    print(reference(), end="")
