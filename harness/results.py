"""Tables and figures of a sweep, finished or not: `python harness/results.py RESULTS [RESULTS]`.

Reads run records and their neighbours alone; needs no Ray and no GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from featgan.errors import UserError
from harness import figures
from harness.outcome import Cell, Outcome, cell_name
from harness.paper_tables import group_tables, run_tables, score_tables
from harness.table import Table, escape_markdown


def make(results: Path, expected: list[Cell] | None = None) -> Path:
    """Write `tables/` and `figures/` below a sweep's folder; returns the main `tables.md`.

    `expected` are the cells of the grid; without it they come from `sweep.json`.
    """
    outcome = Outcome.read(results, expected)
    sections = all_tables(outcome)
    folder = results / "tables"
    folder.mkdir(exist_ok=True)
    main = folder / "tables.md"
    main.write_text(_markdown(outcome, sections))
    tables = [table for _, section in sections for table in section]
    (folder / "tables.tex").write_text("\n".join(table.latex() for table in tables))
    for table in tables:
        (folder / f"{table.key}.csv").write_text(table.csv())
    figures.draw(outcome, results / "figures")
    return main


def screen(results: Path, expected: list[Cell] | None = None) -> str:
    """The main tables as text for the terminal, and what is missing."""
    outcome = Outcome.read(results, expected)
    tables = [*group_tables(outcome), *score_tables(outcome)]
    return "\n".join([*state(outcome), "", *(table.text() for table in tables)])


def all_tables(outcome: Outcome) -> list[tuple[str, list[Table]]]:
    """Every table under the heading of its section; empty sections left out."""
    sections = [
        ("Feature groups (the paper's tables 2 and 3)", group_tables(outcome)),
        ("Epochs and scores (the paper's tables 4 and 5)", score_tables(outcome)),
        ("Every run", run_tables(outcome)),
    ]
    return [(heading, tables) for heading, tables in sections if tables]


def state(outcome: Outcome) -> list[str]:
    """How complete the sweep is, what failed, and its plain remarks; a line each."""
    finished = [run for run in outcome.runs if run.status == "finished"]
    lines = [f"{len(finished)} of {len(outcome.cells)} runs finished."]
    for status in ("running", "interrupted", "diverged", "failed"):
        names = [cell_name(run.cell) for run in outcome.runs if run.status == status]
        if names:
            lines.append(f"{status.capitalize()}: {', '.join(names)}.")
    if outcome.missing:
        lines.append(f"Not begun: {', '.join(map(cell_name, outcome.missing))}.")
    return [*lines, *outcome.problems, *outcome.notes]


def _markdown(outcome: Outcome, sections: list[tuple[str, list[Table]]]) -> str:
    head = [f"# Results of the sweep {escape_markdown(outcome.name)}", ""]
    remarks = [f"- {escape_markdown(line)}" for line in state(outcome)]
    body = [
        part
        for heading, tables in sections
        for part in ["", f"## {heading}", "", "\n".join(table.markdown() for table in tables)]
    ]
    return "\n".join([*head, *remarks, *body])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python harness/results.py", description="Tables and figures of a sweep."
    )
    parser.add_argument("results", type=Path, help="folder of a sweep, as results/quickstart")
    options = parser.parse_args(arguments)
    try:
        tables = make(options.results)
        print(screen(options.results))
        print(f"Tables: {tables}\nFigures: {options.results / 'figures'}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
