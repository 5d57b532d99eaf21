from pathlib import Path

from reference import reference

from harness.plan.load import axis_keys
from harness.plan.settings import Sweep

PAGE = Path(__file__).parents[1] / "docs" / "sweep-file.md"


def test_the_page_in_the_docs_is_the_schemas():
    assert PAGE.read_text() == reference(), "run `make docs`"


def test_every_key_has_a_meaning():
    empty = [line for line in reference().splitlines() if line.endswith("|  |")]
    assert empty == []


def test_every_key_is_on_the_page():
    page = reference()
    for key in axis_keys():
        assert f"| `{key.rpartition('.')[2]}` |" in page
    for key in Sweep.model_fields:
        assert f"| `{key}` |" in page
