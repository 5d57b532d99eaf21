"""What is no sealed JSON file is refused in one line."""

import json

import pytest
from pydantic import ValidationError

from harness.storage.sealed import Sealed, first_problem


class Numbers(Sealed):
    numbers: dict[int, float]


WHOLE = Numbers(numbers={1: 0.1})


def test_what_was_written_is_read_back() -> None:
    sha256 = "bd99f2f8e3426960500a7c229e26ce7b5b152c99f0e0732a72c340c9738928c5"
    assert json.loads(WHOLE.to_json()) == {"format": 1, "numbers": {"1": 0.1}, "sha256": sha256}
    assert Numbers.model_validate_json(WHOLE.to_json()) == WHOLE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (WHOLE.to_json().replace(b"0.1", b"0.2"), "the file: damaged or edited"),
        (WHOLE.to_json()[:-4], "the file: Invalid JSON"),
        (b'{"a": ' * 100_000, "the file: Invalid JSON"),
        (b'{"format": 2, "numbers": {}}', "format: another version of featgan wrote it"),
    ],
)
def test_a_file_that_was_not_written_so_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Numbers.model_validate_json(data)
    assert first_problem(refused.value).startswith(reason)
