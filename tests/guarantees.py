"""The list of guarantees in docs/reliability.md, made from the marks of the tests.

`@pytest.mark.guarantee(topic, text)` on a test, or in the `pytestmark` of a module, says what the
test guarantees. `python tests/guarantees.py docs/reliability.md` rewrites the list; tests with
the same topic and text share an item.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
BEGIN, END = "<!-- guarantees: written by make docs -->", "<!-- end of guarantees -->"
TOPICS = (
    "Sweep files",
    "Images",
    "Names",
    "Files that are read back",
    "Verdicts",
    "Faults",
    "Load",
    "Exposure",
)
SHOWN = ("slow", "cluster", "gpu")
"""Marks of tests that `make test` leaves out, which the list names."""


class Guarantee(NamedTuple):
    """One mark: what is guaranteed, and the test that shows it."""

    topic: str
    text: str
    path: Path
    test: str
    kind: str

    def link(self) -> str:
        """Return the test as a link from docs/, with the kind of test that it is."""
        target = f"[`{self.test}`](../tests/{self.path.relative_to(TESTS)})"
        return f"{target} ({self.kind})" if self.kind else target


def page(text: str) -> str:
    """Return the text of the page with the list between the two comments written again."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{items()}\n{END}{after}"


def items() -> str:
    """Return a list for each topic; an item is a guarantee and its tests."""
    found = [mark for path in sorted(TESTS.rglob("test_*.py")) for mark in marks(path)]
    if wrong := {mark.topic for mark in found} ^ {*TOPICS}:
        raise SystemExit(f"guarantees: topics without tests, or unknown: {sorted(wrong)}")
    lines = []
    for topic in TOPICS:
        lines += [f"### {topic}", ""]
        rows: dict[str, list[str]] = {}
        for mark in found:
            if mark.topic == topic:
                rows.setdefault(mark.text, []).append(mark.link())
        lines += [f"- {text}: {', '.join(links)}" for text, links in rows.items()]
        lines.append("")
    return "\n".join(lines)


def marks(path: Path) -> Iterator[Guarantee]:
    """Yield the guarantees of one module and of the tests in it."""
    tree = ast.parse(path.read_text())
    whole: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            value = node.value
            whole = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    yield from _of(path, path.name, whole, whole)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield from _of(path, node.name, node.decorator_list, [*whole, *node.decorator_list])


def _of(
    path: Path, name: str, marks: list[ast.expr], all_marks: list[ast.expr]
) -> Iterator[Guarantee]:
    """Yield the guarantees among `marks`; `all_marks` decide which kind of test it is."""
    names = [ast.unparse(mark).removeprefix("pytest.mark.") for mark in all_marks]
    kind = ", ".join(kind for kind in SHOWN if kind in names)
    for mark in marks:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.guarantee":
            topic, text = map(ast.literal_eval, mark.args)
            yield Guarantee(topic, text, path, name, kind)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text()))
