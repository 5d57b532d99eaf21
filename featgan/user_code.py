"""Resolve names in a sweep file to built-in or user-defined functions.

Image values, groupings, modes, criteria, metrics and networks each have a registry of built-in
functions. Instead of a built-in name, a sweep file may give `module:function`. Nothing else is
imported by name, and only `resolve` imports.
"""

import importlib.util
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import AfterValidator

from featgan.digests import sha256_of_file
from featgan.errors import UserError, did_you_mean, first_line

T = TypeVar("T")

USER_DEFINED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""The name of a user-defined function: `module:function`."""


def choice(registry: Iterable[str]) -> AfterValidator:
    """Return a validator for an annotated settings field: a built-in name or `module:function`.

    A user-defined function is not imported.
    """

    def check(name: str) -> str:
        if name in registry or USER_DEFINED.fullmatch(name):
            return name
        known = f"{', '.join(registry)}, nor module:function"
        raise ValueError(f"{name!r} is none of {known}{did_you_mean(name, registry)}")

    return AfterValidator(check)


def resolve(name: str, registry: Mapping[str, T]) -> T:
    """Return the function that `name` stands for; import it if it is user-defined.

    Raises `UserError` if the module or function does not exist, or importing the module fails.
    """
    if name in registry:
        return registry[name]
    if not USER_DEFINED.fullmatch(name):
        raise UserError(f"{name!r}: none of {', '.join(registry)}, nor module:function")
    module, _, function = name.partition(":")
    with user_code_errors(name):
        try:
            code = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module exists, and imports another that does not
            raise UserError(
                f"{name}: there is no module {error.name!r}; put {module}.py into the folder "
                "in which the command is started, or install it on every machine"
            ) from None
    found = getattr(code, function, None)
    if not callable(found):
        raise UserError(f"{name}: module {module!r} has no function {function!r}")
    return found


@contextmanager
def user_code_errors(name: str) -> Iterator[None]:
    """Raise errors of a user-defined function as `UserError` with its name and the line.

    Exceptions from built-in functions propagate: they are our bugs.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit would end the command with success
        if not USER_DEFINED.fullmatch(name):
            raise
        reason = first_line(error)
        raise UserError(f"{name}: {type(error).__name__}: {reason}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Return ` (file, line n)` of the innermost frame outside this package and Python's imports."""
    if isinstance(error, SyntaxError):  # its text names the place
        return ""
    skipped = ("<", f"{Path(__file__).parent}/")
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith(skipped)]
    return f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""


def source_digest(name: str) -> str | None:
    """Return the SHA-256 of the source file of a user-defined function, for a run's signature.

    Modules that this file imports are not included. Returns None for a built-in name, and if
    there is no such file.
    """
    if USER_DEFINED.fullmatch(name):
        with suppress(ModuleNotFoundError):  # of the package around it
            spec = importlib.util.find_spec(name.partition(":")[0])
            if spec and spec.origin and spec.has_location:
                return sha256_of_file(spec.origin)
    return None
