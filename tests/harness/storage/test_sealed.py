"""What is no sealed JSON file is refused in one line."""

import pytest

from harness.storage.sealed import unseal


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1}', "not sealed"),
        (b'{"a": 1, "sha256": "0"}', "damaged or edited"),
        (b'{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_seal_did_not_write_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}.*$"):
        unseal(data)
