"""Sealed files."""

import pytest

from harness.storage.sealed import unseal


@pytest.mark.parametrize("data", [b"[" * 10**5, b'{"a":' * 10**5], ids=["lists", "objects"])
def test_a_sealed_file_nested_too_deeply_is_refused(data):
    with pytest.raises(ValueError, match="nested too deeply"):
        unseal(data)
