"""docs/reliability.md lists the guarantees that the tests are marked with."""

from pathlib import Path

import guarantees
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def test_the_page_lists_the_marked_tests() -> None:
    text = PAGE.read_text()
    assert guarantees.BEGIN in text
    assert guarantees.page(text) == text, "run make docs"


def test_a_mark_on_a_test_or_a_module_is_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarantees, "TESTS", tmp_path)
    monkeypatch.setattr(guarantees, "TOPICS", ("A", "B"))
    (tmp_path / "test_x.py").write_text(
        "pytestmark = [pytest.mark.slow, pytest.mark.guarantee('A', 'one')]\n"
        "@pytest.mark.gpu\n@pytest.mark.guarantee('B', 'two')\ndef test_a(): ...\n"
        "@pytest.mark.guarantee('B', 'two')\ndef test_b(): ...\n"
    )
    lines = guarantees.items().splitlines()
    assert "- one: [`test_x.py`](../tests/test_x.py) (slow)" in lines
    tests = "[`test_a`](../tests/test_x.py) (slow, gpu), [`test_b`](../tests/test_x.py) (slow)"
    assert f"- two: {tests}" in lines
