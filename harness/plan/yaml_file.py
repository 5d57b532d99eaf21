"""Reading a YAML sweep file, and saying in one line what is wrong with one.

Knows YAML and pydantic's errors, but none of the keys.
"""

from __future__ import annotations

import difflib
import re
import typing
import unicodedata
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from featgan.errors import UserError
from harness.storage.redaction import redacted

LARGEST_FILE = 2**18
LARGEST_EXPANSION = 2**20
"""Characters in a file, aliases expanded; beyond it lies a mistake or an attack."""
VALUE_CHARACTERS = 20
"""What any value counts as, its text apart."""
LARGEST_NUMBER = 2**63 - 1
LONGEST_SHOWN = 60
"""Characters of a foreign value or key that an error repeats."""

Place = tuple["Place", str | int] | None
"""Where a value is: the place of what holds it, and its key; written out only for people."""


class _Loader(yaml.SafeLoader):
    """YAML's safe types, `1e-4` read as a number, no key twice, and no merges."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Like its parent's, but duplicate keys, and merges, which may grow beyond reason, fail."""
        seen = set()
        for key, _ in node.value:
            problem = ""
            if key.tag == "tag:yaml.org,2002:merge":
                problem = "merge keys (<<) are not read: write the keys out"
            elif isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"key {_shown(key.value)} twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
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
    except UserError:
        raise
    # PyYAML's constructors raise whatever they stumble over: LookupError, AttributeError, …
    except Exception as error:
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
        return f"{_shortened(key)}: unknown key{nearest(str(place[-1]), siblings)}"
    if first["type"] == "missing":
        return f"{key}: missing"
    if first["type"] == "union_tag_invalid":  # pydantic repeats the whole of it, however long
        told = first["ctx"]
        key, tag = f"{key}.{told['discriminator'].strip(chr(39))}", _shown(told["tag"])
        return f"{_shortened(key)}: one of {told['expected_tags']}, not {tag}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return _one_line(message if not place else f"{key}: {message}")
    message = f"{message[:1].lower()}{message[1:]}, not {_shown(first['input'])}"
    return _one_line(f"{_shortened(key)}: {message}")


def _yaml_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        return _one_line(f"{where}{error.problem or error.context}")
    return _one_line(str(error))


def _check_plain(content: dict[str, Any], path: Path) -> None:
    """Refuse what expands beyond reason, refers to itself, or is neither text nor number."""
    budget = LARGEST_EXPANSION
    rest: list[tuple[Place, Any]] = [(None, content)]
    while rest:
        place, value = rest.pop()
        budget -= VALUE_CHARACTERS + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict):
            budget -= sum(len(key) for key in value if isinstance(key, str))
        if budget < 0:
            raise UserError(f"{path}: more than {LARGEST_EXPANSION} characters, aliases expanded")
        if problem := _not_plain(value):
            raise UserError(f"{path}: {_written(place)}: {problem}")
        if isinstance(value, dict):
            rest.extend(((place, key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            rest.extend(((place, number), inner) for number, inner in enumerate(value))


def _not_plain(value: Any) -> str:
    """What is wrong with one value, or with the keys of a mapping; empty where nothing is."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"{_shown(key)}: a key must be text; quote it"
            if problem := _not_plain(key):
                return f"{_shown(key)}: {problem}"
    elif isinstance(value, str):
        odd = [c for c in value if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if odd:
            return f"holds the control character {odd[0]!a}"
    elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return "a number of more than 64 bits"
    elif not isinstance(value, int | float | list | None):
        return f"a {type(value).__name__} is no value here; quote it to make it text"
    return ""


def _written(place: Place) -> str:
    """A place as people read it: `training.batch_size`; the end of one that is long."""
    parts: list[str] = []
    while place is not None and len(parts) < 8:
        place, key = place
        parts.append(_shortened(str(key)))
    return ".".join(reversed(parts)) or "the file"


def _shown(value: Any) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    text = redacted(text)  # what is cut is no longer known for a secret
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "…"


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
        elif last and not _is_type_name(part) and not _of_one(part, content):
            place.append(part)
    return place


def _of_one(part: int | str, content: Any) -> bool:
    """Whether this is the number of an entry in a list that the file gives as its one entry."""
    return isinstance(part, int) and isinstance(content, dict)


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
    close = difflib.get_close_matches(key[:LONGEST_SHOWN], keys, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid here: {', '.join(keys)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
