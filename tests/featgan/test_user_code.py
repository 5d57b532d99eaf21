import sys
from typing import Annotated

import pytest
from pydantic import ValidationError

from featgan.errors import UserError
from featgan.settings import Settings
from featgan.user_code import choice, resolve, source_digest, user_code_errors

REGISTRY = {"plain": len, "fancy": max}


class Chosen(Settings):
    """A settings class with a choice."""

    name: Annotated[str, choice(REGISTRY)] = "plain"
    """Which."""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "user_things.py"
    path.write_text("def longest(values):\n    return len(values)\n\nNUMBER = 3\n")
    yield path
    sys.modules.pop("user_things", None)


def test_a_built_in_name_is_looked_up():
    assert resolve("fancy", REGISTRY) is max
    assert source_digest("fancy") is None


def test_a_user_defined_function_is_imported(user_module):
    assert resolve("user_things:longest", REGISTRY)([1, 2, 3]) == 3


def test_source_digest_changes_with_the_source(user_module):
    before = source_digest("user_things:longest")
    user_module.write_text("def longest(values):\n    return 0\n")
    assert len(before) == 64
    assert source_digest("user_things:longest") != before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module_here:f", "there is no module 'no_such_module_here'"),
        ("user_things:shortest", "has no function 'shortest'"),
        ("user_things:NUMBER", "has no function 'NUMBER'"),
        ("plan", "none of plain, fancy"),
        ("os; import sys:path", "none of plain, fancy"),
        ("../evil:f", "none of plain, fancy"),
    ],
)
def test_missing_functions_are_refused_in_one_line(user_module, name, why):
    with pytest.raises(UserError, match=why) as error:
        resolve(name, REGISTRY)
    assert "\n" not in str(error.value)


@pytest.mark.guarantee("Sweep files", "An error in a user-defined function is one line")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import something_missing_from_here\n",
            "ModuleNotFoundError: No module named 'something_missing_from_here' "
            "(user_things.py, line 1)",
        ),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (user_things.py, line 2)"),
        ("def longest(:\n", "SyntaxError: invalid syntax (user_things.py, line 1)"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one (user_things.py, line 1)"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 (user_things.py, line 2)"),
    ],
)
def test_a_failing_import_is_reported_with_its_line(user_module, source, reason):
    user_module.write_text(source)
    with pytest.raises(UserError) as error:
        resolve("user_things:longest", REGISTRY)
    assert str(error.value) == f"user_things:longest: {reason}"


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (
            "os:sep",
            ValueError("no\nway"),
            r"^os:sep: ValueError: no \(test_user_code.*, line \d+\)$",
        ),
        ("os:abort", SystemExit(3), r"^os:abort: SystemExit: 3"),
        ("os:sep", UserError("as it is"), r"^as it is$"),
    ],
)
def test_errors_of_user_code_become_user_errors(name: str, error: BaseException, says: str) -> None:
    with pytest.raises(UserError, match=says), user_code_errors(name):
        raise error


def test_errors_of_built_in_functions_propagate() -> None:
    with pytest.raises(ZeroDivisionError), user_code_errors("plain"):
        1 / 0  # noqa: B018


def test_settings_accept_built_in_and_user_defined_names():
    assert Chosen(name="fancy").name == "fancy"
    assert Chosen(name="a.b:c").name == "a.b:c"  # not imported here
    with pytest.raises(ValidationError, match="did you mean 'plain'"):
        Chosen(name="plian")
    with pytest.raises(ValidationError, match="none of plain, fancy"):
        Chosen(name="__import__('os')")
