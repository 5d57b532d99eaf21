import os
import sys
from typing import Annotated

import pytest
from pydantic import ValidationError

from featgan.errors import UserError
from featgan.settings import Settings
from featgan.user_code import blamed, choice, digest, resolve

REGISTRY = {"plain": len, "fancy": max}


class Chosen(Settings):
    """A settings class with a choice."""

    name: Annotated[str, choice(REGISTRY)] = "plain"
    """Which."""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "my_own_things.py"
    path.write_text("def longest(values):\n    return len(values)\n\nNUMBER = 3\n")
    yield path
    sys.modules.pop("my_own_things", None)


def test_a_registered_name_is_what_the_registry_says():
    assert resolve("fancy", REGISTRY) is max
    assert digest("fancy") is None


def test_a_function_of_the_users_own(own_module):
    assert resolve("my_own_things:longest", REGISTRY)([1, 2, 3]) == 3


def test_its_digest_changes_with_its_source(own_module):
    before = digest("my_own_things:longest")
    own_module.write_text("def longest(values):\n    return 0\n")
    assert len(before) == 64
    assert digest("my_own_things:longest") != before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module_here:f", "there is no module 'no_such_module_here'"),
        ("my_own_things:shortest", "has no 'shortest'"),
        ("my_own_things:NUMBER", "not a function"),
        ("plan", "none of plain, fancy"),
        ("os; import sys:path", "none of plain, fancy"),
        ("../evil:f", "none of plain, fancy"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(own_module, name, why):
    with pytest.raises(UserError, match=why) as error:
        resolve(name, REGISTRY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "import something_missing_from_here\n",
            "ModuleNotFoundError: No module named 'something_missing_from_here' "
            "(my_own_things.py, line 1)",
        ),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (my_own_things.py, line 2)"),
        ("def longest(:\n", "SyntaxError: invalid syntax (my_own_things.py, line 1)"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one (my_own_things.py, line 1)"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 (my_own_things.py, line 2)"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_told_with_its_line(own_module, source, told):
    own_module.write_text(source)
    with pytest.raises(UserError) as error:
        resolve("my_own_things:longest", REGISTRY)
    assert str(error.value) == f"my_own_things:longest: {told}"


def test_what_an_own_function_raises_is_blamed_on_it_and_ours_passes():
    with pytest.raises(UserError, match=r"^os:getcwd: TypeError: .* takes no"), blamed("os:getcwd"):
        os.getcwd(1)
    with pytest.raises(UserError, match=r"os:sep: ValueError: .*test_user_code"), blamed("os:sep"):
        raise ValueError
    with pytest.raises(UserError, match=r"^os:abort: SystemExit: 3"), blamed("os:abort"):
        sys.exit(3)
    with pytest.raises(UserError, match=r"^as it is$"), blamed("os:getcwd"):
        raise UserError("as it is")
    with pytest.raises(ZeroDivisionError), blamed("plain"):
        1 / 0  # noqa: B018


def test_settings_take_registered_names_and_the_form_of_an_own_function():
    assert Chosen(name="fancy").name == "fancy"
    assert Chosen(name="a.b:c").name == "a.b:c"  # not imported here
    with pytest.raises(ValidationError, match="did you mean 'plain'"):
        Chosen(name="plian")
    with pytest.raises(ValidationError, match="none of plain, fancy"):
        Chosen(name="__import__('os')")
