"""Read a YAML sweep file, and explain validation errors in one line.

Knows YAML and pydantic's errors, but none of the keys.
"""

import re
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from featgan.errors import UserError, did_you_mean, first_line
from harness.storage.redaction import redacted

LARGEST_FILE = 2**18
LONGEST_INTEGER = 20
"""Characters of an integer; a longer one has more than 64 bits."""
LONGEST_SHOWN = 60
"""Characters of a value or key from the file that an error repeats."""
NO_CREDENTIALS = (
    "an address in a sweep file holds no credentials; put them into the environment "
    "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a credentials file"
)
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML's safe types; reads `1e-4` as a number, and refuses a key that is given twice."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose a text or number; raise ConstructorError for one that is refused."""
        node = super().compose_scalar_node(anchor)
        if "://" in node.value and (shown := redacted(node.value)) != node.value:
            _refuse(node, f"{_shortened(shown)}: {NO_CREDENTIALS}")
        if found := CONTROL.search(node.value):
            _refuse(node, f"control character {found[0]!a} in a text")
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_INTEGER:
            _refuse(node, "an integer of more than 64 bits")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; raise ConstructorError for one that has a key twice."""
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                _refuse(key, f"key {_shown(key.value)} twice")
            keys.add(key.value)
        return node


def _refuse(node: yaml.Node, problem: str) -> None:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    "-+0123456789",
)


def parse(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; UserError for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path}: larger than {LARGEST_FILE} bytes; not a sweep file")
    try:
        content = yaml.load(data, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: {where}{error.problem or error.context}") from None
    # PyYAML's constructors raise LookupError, AttributeError and others for invalid tags
    except Exception as error:
        raise UserError(f"{path}: not readable as YAML: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file is a mapping of keys such as `data:` and `grid:`")
    return content


def value_of(text: str) -> Any:
    """Return the value that a text has in a sweep file; the text itself where it has none."""
    try:
        return yaml.load(text, _Loader)
    except Exception:  # of as many kinds as in `parse`
        return text


def explain(error: ValidationError, content: Any, model: type[BaseModel]) -> str:
    """Return one line on the first of pydantic's errors: key, what is wrong, nearest valid key.

    `content` is what was validated; None for values of the grid, which have no place in the file.
    """
    first = error.errors(include_url=False)[0]
    place = _place(first["loc"], content, first["type"] == "missing")
    key = _shortened(".".join(map(str, place)) or "the file")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(str(place[-1]), _valid_keys(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key}: missing"
    if first["type"] == "union_tag_invalid":  # pydantic's message repeats the whole of the tag
        context = first["ctx"]
        key, tag = f"{key}.{context['discriminator'].strip(chr(39))}", _shown(context["tag"])
        return f"{key}: one of {context['expected_tags']}, not {tag}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{key}: {message}" if place else message
    return f"{key}: {message[:1].lower()}{message[1:]}, not {_shown(first['input'])}"


def nearest(key: str, keys: list[str]) -> str:
    """Return `; did you mean …?`, or all the keys where none is similar."""
    return did_you_mean(key, keys) or f"; valid here: {', '.join(keys)}"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the model classes in a type annotation, members of unions and lists included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in typing.get_args(annotation) for m in models_in(inner)]


def _place(loc: tuple[int | str, ...], content: Any, missing: bool) -> list[int | str]:
    """An error's keys in the file, without the names of types that pydantic puts between them."""
    if content is None:
        return list(loc)
    place: list[int | str] = []
    for part in loc:
        keys = range(len(content)) if isinstance(content, list) else content
        if isinstance(keys, dict | range) and part in keys:
            content = content[part]
            place.append(part)
    return [*place, loc[-1]] if missing else place


def _valid_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are valid at `loc` below a model; a union's member is found by its tag."""
    models = [model]
    for part in loc:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        tagged = [m for m in models if part in _tags(m)]
        models = [m for field in fields for m in models_in(field.annotation)] or tagged or models
    return sorted({key for candidate in models for key in candidate.model_fields})


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("source")
    return typing.get_args(field.annotation) if field else ()


def _shown(value: Any) -> str:
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "…"
