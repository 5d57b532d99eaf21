"""One table, and its forms: Markdown, CSV, LaTeX, HTML and plain text for the terminal.

Knows no runs and no scores. Every label is escaped for the form it is written in.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Value = str | int | float | None

MISSING = "\u2013"

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "\u2212": "$-$",
    "\u2013": "--",
    "…": r"\ldots{}",
}
_MARKDOWN = {character: "\\" + character for character in "\\`*_[]|#~$"} | {
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
}


@dataclass(frozen=True)
class Column:
    """A heading and the number of decimals its numbers are shown with."""

    name: str
    digits: int = 0


@dataclass(frozen=True)
class Table:
    """Rows under columns; `key` names its files, `notes` say what a reader must know."""

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.key}: {len(row)} values under {len(self.columns)} columns")

    def markdown(self) -> str:
        """A pipe table under its title, its notes below."""
        head, *body = self._cells(escape_markdown)
        rule = ["---:" if numeric else "---" for numeric in self._numeric()]
        lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
        notes = [f"\n{escape_markdown(note)}" for note in self.notes]
        return "\n".join([f"### {escape_markdown(self.title)}\n", *lines, *notes]) + "\n"

    def csv(self) -> str:
        """Comma-separated, numbers unrounded, an empty field where a value is missing."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.name for column in self.columns])
        writer.writerows([["" if _absent(v) else v for v in row] for row in self.rows])
        return text.getvalue()

    def latex(self) -> str:
        """A `table` environment that needs no package."""
        head, *body = self._cells(escape_latex)
        align = "".join("r" if numeric else "l" for numeric in self._numeric())
        return "\n".join(
            [
                r"\begin{table}",
                rf"  \caption{{{escape_latex(self.title)}}}",
                rf"  \begin{{tabular}}{{{align}}}",
                r"    \hline",
                "    " + " & ".join(head) + r" \\ \hline",
                *("    " + " & ".join(row) + r" \\" for row in body),
                r"    \hline",
                r"  \end{tabular}",
                *(rf"  \par {escape_latex(note)}" for note in self.notes),
                r"\end{table}",
                "",
            ]
        )

    def html(self) -> str:
        """A `figure` holding the table, so that a narrow screen can scroll it by itself."""
        head, *body = self._cells(html.escape)
        kind = ['class="n"' if numeric else "" for numeric in self._numeric()]

        def line(tag: str, row: Sequence[str]) -> str:
            return "".join(
                f"<{tag} {k}>{cell}</{tag}>".replace(" >", ">")
                for k, cell in zip(kind, row, strict=True)
            )

        rows = "".join(f"<tr>{line('td', row)}</tr>\n" for row in body)
        notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in self.notes)
        return (
            f'<figure class="table"><figcaption>{html.escape(self.title)}</figcaption>'
            f'<div class="scroll" tabindex="0"><table><thead><tr>{line("th", head)}</tr></thead>\n'
            f"<tbody>{rows}</tbody></table></div>{notes}</figure>\n"
        )

    def text(self) -> str:
        """Aligned columns for the terminal."""
        cells = self._cells(str)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        numeric = self._numeric()

        def line(row: Sequence[str]) -> str:
            fitted = zip(row, widths, numeric, strict=True)
            return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in fitted).rstrip()

        head, *body = cells
        rule = "  ".join("─" * width for width in widths)
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self.title, line(head), rule, *map(line, body), *notes]) + "\n"

    def _numeric(self) -> list[bool]:
        """Per column: does it hold a number, and is therefore aligned to the right?"""
        columns = zip(*self.rows, strict=True) if self.rows else [() for _ in self.columns]
        return [any(isinstance(v, int | float) for v in values) for values in columns]

    def _cells(self, escape: Callable[[str], str]) -> list[list[str]]:
        """Heading and rows as escaped text."""
        rows = [[escape(column.name) for column in self.columns]]
        for row in self.rows:
            shown = (show(v, c.digits) for v, c in zip(row, self.columns, strict=True))
            rows.append([escape(text) for text in shown])
        return rows


def show(value: Value, digits: int) -> str:
    """A value as people read it: `1,834`, `3.74`, a dash where there is none."""
    if _absent(value):
        return MISSING
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table too."""
    return "".join(_MARKDOWN.get(character, character) for character in text).replace("\n", " ")


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(character, character) for character in text).replace("\n", " ")


def _absent(value: Value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
