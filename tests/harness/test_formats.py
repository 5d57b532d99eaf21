"""docs/formats.md describes every field of the schemas."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from featgan.staging import progress
from harness.records import run_record, sweep_records
from harness.report import build

ROOT = Path(__file__).parents[2]
FORMATS = (ROOT / "docs" / "formats.md").read_text()


@pytest.mark.parametrize(
    "model",
    [
        run_record.RunRecord,  progress.Evaluation, progress.StageRecord, run_record.Seconds,
        sweep_records.GroupsRecord, sweep_records.DataRecord,
        sweep_records.Rescored,
        sweep_records.RealRecord, sweep_records.CountStatistics,
    ],
)  # fmt: skip
def test_every_field_is_documented(model):
    documented = set(re.findall(r"`(\w+)`", FORMATS))
    names = getattr(model, "model_fields", None) or [field.name for field in fields(model)]
    assert set(names) <= documented | {"format"}


def test_every_table_of_a_sweep_is_documented(sweep_folder):
    folder = sweep_folder(seeds=1, length=2)
    build.make(folder)
    for path in (folder / "tables").glob("*.csv"):
        kind = path.stem.partition("-")[0]
        assert f"`{kind}`" in FORMATS or f"`{path.name}`" in FORMATS


def test_the_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] in (ROOT / "pyproject.toml").read_text()
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference), json.dumps(reference)
