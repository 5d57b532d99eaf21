"""What the method measures is what the records hold, field by field."""

from dataclasses import fields

import pytest

from featgan.scores import image_quality
from harness.records import sweep_records
from harness.storage.sealed import unseal

PAIRS = [
    pytest.param(image_quality.Qualities, sweep_records.QualityRecord, id="qualities"),
]


@pytest.mark.parametrize(("measured", "recorded"), PAIRS)
def test_a_record_has_the_fields_of_what_was_measured(measured, recorded):
    model = {name: field.annotation for name, field in recorded.model_fields.items()}
    kinds = {"int": int, "float": float, "dict[str, float]": dict[str, float]}
    assert {field.name: kinds[field.type] for field in fields(measured)} == model


@pytest.mark.parametrize("data", [b"[" * 10**5, b'{"a":' * 10**5], ids=["lists", "objects"])
def test_a_sealed_file_nested_too_deeply_is_refused_as_a_damaged_one(data):
    with pytest.raises(ValueError, match="nested too deeply"):
        unseal(data)
