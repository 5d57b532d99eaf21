"""Tables and figures of a sweep, finished or not: `python harness/results.py RESULTS [RESULTS]`.

Reads run records and their neighbours alone; needs no Ray and no GPU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from harness.records.run_record import RunRecord
from harness.records.sweep_results import Cell, Outcome, cell_name
from harness.report import figures, html
from harness.report.claims import claim_table, quality_tables
from harness.report.html import Section
from harness.report.paper_tables import group_tables, run_tables, score_tables
from harness.report.statistics import honest_tables
from harness.report.table import escape_markdown

MOST_COUNT = 1_000_000
"""Images of a re-score: their classes' logits take 4 GB."""
STUCK = 1.0
"""Spread over generated images, in grey levels, under which all are one image to the eye."""


def make(results: Path, expected: list[Cell] | None = None, reach: float | None = None) -> Path:
    """Write tables, figures and report into a sweep's folder; returns the main `tables.md`.

    `expected` are the cells of the grid; without it they come from `sweep.json`. `reach` is
    the score whose epochs and seconds are told. What an earlier call wrote and this one did
    not is removed: an old table beside new ones would be a false one.
    """
    outcome = Outcome.read(results, expected)
    sections = all_sections(outcome, reach)
    tables = [table for section in sections for table in section.tables]
    files = {f"{figures.file_name(table.key)}.csv": table.csv() for table in tables}
    files["tables.tex"] = "\n".join(table.latex() for table in tables)
    files["tables.md"] = _markdown(outcome, sections)
    folder = results / "tables"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    drawn = figures.draw(outcome, results / "figures")
    _remove_stale(folder, set(files), (".csv",))
    _remove_stale(results / "figures", {path.name for path in drawn}, (".png", ".svg"))
    html.write(outcome, sections, state(outcome), drawn)
    return folder / "tables.md"


def screen(results: Path, expected: list[Cell] | None = None) -> str:
    """The main tables as text for the terminal, and what is missing."""
    outcome = Outcome.read(results, expected)
    tables = [*group_tables(outcome), *score_tables(outcome)]
    return "\n".join([*state(outcome), "", *(table.text() for table in tables)])


def all_sections(outcome: Outcome, reach: float | None = None) -> list[Section]:
    """Every table in its section; empty tables and sections left out."""
    sections = [
        Section(
            "Feature groups (the paper's tables 2 and 3)",
            group_tables(outcome),
            ("feature-counts", "values-"),
        ),
        Section(
            "Epochs and scores (the paper's tables 4 and 5)",
            score_tables(outcome),
            ("curves-", "samples-"),
        ),
        Section("How far to trust them", honest_tables(outcome, reach)),
        Section("What the images look like", quality_tables(outcome)),
        Section("The paper's claims", [claim_table(outcome)]),
        Section("Every run", run_tables(outcome)),
    ]
    kept = (replace(s, tables=[table for table in s.tables if table.rows]) for s in sections)
    return [section for section in kept if section.tables]


def state(outcome: Outcome) -> list[str]:
    """How complete the sweep is, what failed, and its plain remarks; a line each."""
    finished = [run for run in outcome.runs if run.status == "finished"]
    lines = [f"{len(finished)} of {len(outcome.cells)} runs finished."]
    for status in ("running", "interrupted", "diverged", "stopped", "failed"):
        names = [cell_name(run.cell) for run in outcome.runs if run.status == status]
        if names:
            lines.append(f"{status.capitalize()}: {', '.join(names)}.")
    stuck = [run for run in finished if _spread(run) < STUCK]
    if stuck:
        cells = ", ".join(cell_name(run.cell) for run in stuck)
        lines.append(f"Stuck on one image at their last peak (spread under {STUCK:g}): {cells}.")
    mixed = [run for run in outcome.runs if len({_kind(entry) for entry in run.machines}) > 1]
    if mixed:
        cells = ", ".join(cell_name(run.cell) for run in mixed)
        lines.append(f"Continued on another device or PyTorch, so not exactly repeatable: {cells}.")
    if outcome.missing:
        lines.append(f"Not begun: {', '.join(map(cell_name, outcome.missing))}.")
    return [*lines, *outcome.problems, *outcome.notes]


def _kind(entry: str) -> str:
    """Device and PyTorch of an entry of a run's `machines`, whatever the host's name."""
    return entry.partition(": ")[2]


def _spread(run: RunRecord) -> float:
    """The spread of the generator that the run has left: that of its last stage's peak."""
    last = run.stages[-1]
    of_stage = [e for e in run.evaluations if e.stage == last.stage]
    return next((e.spread for e in of_stage if e.epoch == last.peak_epoch), math.inf)


def _markdown(outcome: Outcome, sections: list[Section]) -> str:
    head = [f"# Results of the sweep {escape_markdown(outcome.name)}", ""]
    remarks = [f"- {escape_markdown(line)}" for line in state(outcome)]
    body = [
        part
        for section in sections
        for part in ["", f"## {section.heading}", "", *(t.markdown() for t in section.tables)]
    ]
    return "\n".join([*head, *remarks, *body])


def _remove_stale(folder: Path, kept: set[str], suffixes: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.suffix in suffixes and path.name not in kept:
            path.unlink()
