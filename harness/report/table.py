"""A table and its forms: Markdown, CSV, LaTeX and plain text; HTML is made by the page.

Every label is escaped for the form it is written in.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
        "[": "{[}",  # after the end of a row it would begin an argument
        "\n": " ",
    }
)
_MARKDOWN = str.maketrans(
    {character: "\\" + character for character in "\\`*_[]|#~$"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}
)


@dataclass(frozen=True)
class Table:
    """Rows under headings; `key` names its files, `notes` explain its numbers."""

    key: str
    title: str
    frame: pd.DataFrame
    """Values by heading; None or NaN where one is missing."""
    notes: Sequence[str] = ()
    digits: Mapping[str, int | None] = field(default_factory=dict)
    """Decimals with which numbers that are not whole are shown, by heading; 3 by default.

    None: as many as `signed` gives each, for differences of several units in one column.
    """

    @cached_property
    def rows(self) -> list[list[Value]]:
        """The values by row, None where one is missing."""
        values = self.frame.astype(object)
        return values.where(values.notna(), None).to_numpy().tolist()

    def markdown(self) -> str:
        """Return a pipe table under its title, with its notes below."""
        head, *body = self.cells(_MARKDOWN)
        rule = ["---:" if numeric else "---" for numeric in self.numeric()]
        lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
        notes = [f"\n{escape_markdown(note)}" for note in self.notes]
        return "\n".join([f"### {escape_markdown(self.title)}\n", *lines, *notes]) + "\n"

    def csv(self) -> str:
        """Return comma-separated values: numbers unrounded, an empty field for a missing value."""
        return self.frame.to_csv(index=False)

    def latex(self) -> str:
        """Return a `table` environment that needs no package."""
        head, *body = [" & ".join(row) + r" \\" for row in self.cells(_LATEX)]
        rows = "\n    ".join([head + r" \hline", *body])
        align = "".join("r" if numeric else "l" for numeric in self.numeric())
        notes = "".join(f"  \\par {note.translate(_LATEX)}\n" for note in self.notes)
        return rf"""\begin{{table}}
  \caption{{{self.title.translate(_LATEX)}}}
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
        forms = [f"{side}{width}" for side, width in zip(sides, widths, strict=True)]
        head, *body = ["  ".join(map(format, row, forms)).rstrip() for row in cells]
        rule = "  ".join("─" * width for width in widths)
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self.title, head, rule, *body, *notes]) + "\n"

    def numeric(self) -> list[bool]:
        """Return, for each column, True if it holds a number and so is aligned to the right."""
        columns = [*zip(*self.rows, strict=True)]
        return [any(isinstance(v, int | float) for v in values) for values in columns]

    def cells(self, escapes: Mapping[int, str] | None = None) -> list[list[str]]:
        """Return heading and rows as escaped text."""
        head = [*map(str, self.frame)]
        digits = [self.digits.get(name, 3) for name in head]
        rows = [head, *([*map(show, row, digits)] for row in self.rows)]
        return [[text.translate(escapes or {}) for text in row] for row in rows]


def show(value: Value, digits: int | None) -> str:
    """Return a value as people read it: `1,834`, `3.74`, `< 0.001`, or a dash if there is none."""
    if pd.isna(value):
        return MISSING
    if isinstance(value, str):
        return value
    if digits is None:
        return signed(value)
    if isinstance(value, int):
        return f"{value:,}"
    least = 10**-digits
    if 0 < value < least / 2:
        return f"< {least:.{digits}f}"
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "\u2212")  # no -0


def signed(value: float) -> str:
    """Return a difference with its sign and three significant digits: `+0.662`, `-33.3`."""
    value = round(value, 12) + 0.0  # no -0, no rest of a rounding
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:{'+' * bool(value)},.{max(decimals, 0)}f}".replace("-", "\u2212")


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also inside a table."""
    return text.translate(_MARKDOWN)
