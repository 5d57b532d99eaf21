"""Where a name in a sweep file becomes code: a registered function, or the user's own.

Every axis of the method (image scores, orders, criteria, metrics, networks) has a registry; in
place of a registered name a sweep file may say `module:function`. Nothing else is ever imported
by name, and only `resolve` imports.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import AfterValidator

from featgan.errors import UserError

T = TypeVar("T")

OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""How a user's own function is written."""


def choice(registry: Iterable[str]) -> AfterValidator:
    """For an annotated settings field: a registered name, or the form of `module:function`."""

    def check(name: str) -> str:
        if name in registry or OWN.fullmatch(name):
            return name
        close = get_close_matches(name, registry, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name!r} is none of {', '.join(registry)}, nor module:function{meant}")

    return AfterValidator(check)


def resolve(name: str, registry: Mapping[str, T]) -> T:
    """What `name` stands for; a `module:function` is imported.

    Raises UserError where there is no such module or function, or importing the module fails.
    """
    if name in registry:
        return registry[name]
    if not OWN.fullmatch(name):
        raise UserError(f"{name!r}: none of {', '.join(registry)}, nor module:function")
    module, _, function = name.partition(":")
    with blamed(name):
        try:
            code = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise UserError(
                f"{name}: there is no module {error.name!r}; put {module}.py into the folder "
                "the command is started in, or install it on every machine"
            ) from None
    if not hasattr(code, function):
        raise UserError(f"{name}: module {module!r} has no {function!r}")
    found = getattr(code, function)
    if not isinstance(found, Callable):  # type: ignore[arg-type]
        raise UserError(f"{name}: {function!r} is not a function")
    return found


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Within: whatever a `module:function` raises is a UserError that names it and the line.

    What a registered function raises passes: it is a defect of this project.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit would end the command as if all were done
        if not OWN.fullmatch(name):
            raise
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"{name}: {type(error).__name__}: {first}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """` (file, line n)` of the innermost frame outside of this package and of Python's imports."""
    if isinstance(error, SyntaxError):  # names it itself
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f"{path.name}, line {frame.lineno}"
        for frame in frames
        if not frame.filename.startswith("<")
        and Path(__file__).parent not in (path := Path(frame.filename)).parents
    ]
    return f" ({theirs[-1]})" if theirs else ""


def digest(name: str) -> str | None:
    """SHA-256 of the file behind a `module:function`, for a run's signature; else None.

    What the module itself imports is not looked at.
    """
    if not OWN.fullmatch(name):
        return None
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except ModuleNotFoundError:  # of the package around it
        return None
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
