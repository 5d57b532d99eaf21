"""A table and its forms: Markdown, CSV, LaTeX and plain text; HTML is made by the page.

Every label is escaped for the form it is written in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

Value = str | int | float | None

MISSING = "\u2013"

_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\u2212": "$-$",
        "★": r"$\star$",
        "\n": " ",
    }
)
_MARKDOWN = str.maketrans(
    {character: "\\" + character for character in "\\`*_[]|#~$"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}
)


@dataclass(frozen=True)
class Column:
    """A heading, and the number of decimals with which its numbers are shown.

    None: as many as `signed` gives each, for differences of several units in one column.
    """

    name: str
    digits: int | None = 0


@dataclass(frozen=True)
class Table:
    """Rows under columns; `key` names its files, `notes` explain its numbers."""

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()

    @classmethod
    def of_columns(
        cls,
        key: str,
        title: str,
        columns: Sequence[tuple[Column, pd.Series]],
        notes: Sequence[str] = (),
        *,
        last: Mapping[str, Value] | None = None,
    ) -> Table:
        """Build a table from columns of values.

        The first column's index gives the rows and their order; a value that another column lacks
        is missing. `last` is one more row, by heading.
        """
        (_, first), *_ = columns
        frame = pd.concat([values.reindex(first.index) for _, values in columns], axis=1)
        frame = frame.astype(object)
        rows = frame.where(frame.notna(), None).to_numpy().tolist()
        if last:
            rows.append([last.get(column.name) for column, _ in columns])
        return cls(key, title, [column for column, _ in columns], rows, notes)

    def markdown(self) -> str:
        """Return a pipe table under its title, with its notes below."""
        head, *body = self.cells(escape_markdown)
        rule = ["---:" if numeric else "---" for numeric in self.numeric()]
        lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
        notes = [f"\n{escape_markdown(note)}" for note in self.notes]
        return "\n".join([f"### {escape_markdown(self.title)}\n", *lines, *notes]) + "\n"

    def csv(self) -> str:
        """Return comma-separated values: numbers unrounded, an empty field for a missing value."""
        names = [column.name for column in self.columns]
        return pd.DataFrame(self.rows, columns=names, dtype=object).to_csv(index=False)

    def latex(self) -> str:
        """Return a `table` environment that needs no package."""
        head, *body = [" & ".join(row) + r" \\" for row in self.cells(escape_latex)]
        rows = "\n    ".join([head + r" \hline", *body])
        align = "".join("r" if numeric else "l" for numeric in self.numeric())
        notes = "".join(f"  \\par {escape_latex(note)}\n" for note in self.notes)
        return rf"""\begin{{table}}
  \caption{{{escape_latex(self.title)}}}
  \begin{{tabular}}{{{align}}}
    \hline
    {rows}
    \hline
  \end{{tabular}}
{notes}\end{{table}}
"""

    def text(self) -> str:
        """Return aligned columns for the terminal."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        sides = [">" if numeric else "<" for numeric in self.numeric()]
        head, *body = [
            "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip()
            for row in cells
        ]
        rule = "  ".join("─" * width for width in widths)
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self.title, head, rule, *body, *notes]) + "\n"

    def numeric(self) -> list[bool]:
        """Return, for each column, True if it holds a number and so is aligned to the right."""
        columns = zip(*self.rows, strict=True) if self.rows else [() for _ in self.columns]
        return [any(isinstance(v, int | float) for v in values) for values in columns]

    def cells(self, escape: Callable[[str], str] = str) -> list[list[str]]:
        """Return heading and rows as escaped text."""
        head = [column.name for column in self.columns]
        digits = [column.digits for column in self.columns]
        body = [[*map(show, row, digits)] for row in self.rows]
        return [[*map(escape, row)] for row in (head, *body)]


def show(value: Value, digits: int | None) -> str:
    """Return a value as people read it: `1,834`, `3.74`, or a dash if there is none."""
    if pd.isna(value):
        return MISSING
    if isinstance(value, str):
        return value
    if digits is None:
        return signed(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def signed(value: float) -> str:
    """Return a difference with its sign and three significant digits: `+0.662`, `-33.3`."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:{'+' * bool(value)},.{max(decimals, 0)}f}".replace("-", "\u2212")


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also inside a table."""
    return text.translate(_MARKDOWN)


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return text.translate(_LATEX)
