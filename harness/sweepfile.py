"""Reading a YAML sweep file, and saying in one line what is wrong with one.

Knows YAML and pydantic's errors, but none of the keys.
"""

from __future__ import annotations

import difflib
import re
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from featgan.errors import UserError

LARGEST_FILE = 2**20
LARGEST_EXPANSION = 50_000
"""Values in a file, aliases expanded; beyond it lies a mistake or an attack."""


class _Loader(yaml.SafeLoader):
    """YAML's safe types, `1e-4` read as a number, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Like its parent's, but a duplicate key is an error."""
        self.flatten_mapping(node)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    "-+0123456789",
)


def parse(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE} bytes; this is no sweep file")
        content = yaml.load(data, _Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML ({_one_line(str(error))})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file is a mapping of keys such as `data:` and `grid:`")
    _check_plain(content, path)
    return content


def explain(error: ValidationError, content: Any, model: type[BaseModel]) -> str:
    """One line for the first of pydantic's errors: `key: what is wrong, the nearest valid key`."""
    first = error.errors(include_url=False)[0]
    place = _place(first["loc"], content)
    key = ".".join(map(str, place)) or "the file"
    if first["type"] == "extra_forbidden":
        siblings = _siblings(model, first["loc"][:-1])
        return f"{key}: unknown key{nearest(str(place[-1]), siblings)}"
    if first["type"] == "missing":
        return f"{key}: missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return _one_line(message if not place else f"{key}: {message}")
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return _one_line(f"{key}: {message[:1].lower()}{message[1:]}, not {shown}")


def _yaml_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        return _one_line(f"{where}{error.problem or error.context}")
    return _one_line(str(error))


def _check_plain(content: dict[str, Any], path: Path) -> None:
    """Refuse what expands beyond reason, refers to itself, or has keys that are not text."""
    budget = LARGEST_EXPANSION
    rest: list[tuple[str, Any]] = [("", content)]
    while rest:
        place, value = rest.pop()
        budget -= 1
        if budget < 0:
            raise UserError(f"{path}: more than {LARGEST_EXPANSION} values, aliases expanded")
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise UserError(f"{path}: {place}{key!r}: a key must be text; quote it")
                rest.append((f"{place}{key}.", inner))
        elif isinstance(value, list):
            rest.extend((f"{place}{number}.", inner) for number, inner in enumerate(value))


def _place(loc: tuple[int | str, ...], content: Any) -> list[int | str]:
    """The error's place without the names of union members that pydantic puts into it.

    Without content (values of the grid have no place in the file) it is taken as it is.
    """
    if content is None:
        return list(loc)
    place: list[int | str] = []
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        inside = isinstance(content, dict) and part in content
        inside |= isinstance(content, list) and isinstance(part, int) and part < len(content)
        if inside:
            content = content[part]
            place.append(part)
        elif last and not _is_type_name(part):
            place.append(part)
    return place


def _is_type_name(part: int | str) -> bool:
    return isinstance(part, str) and (part == "[key]" or "[" in part or part in _SCALARS)


_SCALARS = {"int", "float", "str", "bool", "none"}


def _siblings(model: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The keys valid at `loc` below a model, union members found by their tag."""
    models = [model]
    for part in loc:
        inner = []
        for candidate in models:
            if part in candidate.model_fields:
                inner += _models_in(candidate.model_fields[str(part)].annotation)
        tagged = [m for m in inner or models if part in _tags(m)]
        models = tagged or inner or models
    return sorted({key for candidate in models for key in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in typing.get_args(annotation) for m in _models_in(inner)]


def _tags(model: type[BaseModel]) -> list[Any]:
    field = model.model_fields.get("source")
    return list(typing.get_args(field.annotation)) if field else []


def nearest(key: str, keys: list[str]) -> str:
    """`; did you mean …?`, or all the keys where none is near."""
    close = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid here: {', '.join(keys)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
