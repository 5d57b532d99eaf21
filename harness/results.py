"""Tables and figures of a sweep, finished or not: `python harness/results.py RESULTS [RESULTS]`.

Reads run records and their neighbours alone; needs no Ray and no GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featgan import output
from featgan.errors import UserError
from harness import figures, report
from harness.claims import claim_table, quality_tables
from harness.comparison import comparison_tables, unmatched
from harness.honest_tables import honest_tables
from harness.outcome import Cell, Outcome, cell_name
from harness.paper_tables import group_tables, run_tables, score_tables
from harness.records import RunRecord
from harness.redaction import redacted
from harness.report import Section
from harness.table import escape_markdown

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
    _draw_histograms(outcome)
    report.write(outcome, sections, state(outcome), drawn)
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


def _draw_histograms(outcome: Outcome) -> None:
    """The values that images are grouped by for TensorBoard, once: they do not change."""
    for name, record in outcome.groups.items():
        home = outcome.folder / "groups" / name
        if not home.is_dir():
            from harness.curves import write_histogram  # loads PyTorch

            write_histogram(home, record.by, record.histogram)


def _compare(folders: list[Path]) -> str:
    first, second = map(Outcome.read, folders)
    tables = [table.text() for table in comparison_tables(first, second)]
    return "\n".join([*tables, *unmatched(first, second)])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python harness/results.py",
        description="Tables and figures of a sweep; of two sweeps, a comparison.",
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="folder of a sweep, as results/quickstart; or two"
    )
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="first measure every finished run's generator again, with fresh noise",
    )
    parser.add_argument("--count", type=int, help="images of a re-score (50,000 on a GPU)")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="networks of your own that a re-score may import",
    )
    parser.add_argument("--reach", type=float, help="the score whose epochs and seconds are told")
    options = parser.parse_args(arguments)
    output.spell_all()
    try:
        if len(options.results) > 2:
            raise UserError("more than two folders; give one sweep, or two to compare")
        if options.count is not None and not 1 <= options.count <= MOST_COUNT:
            raise UserError(f"--count {options.count}: a re-score takes 1 to {MOST_COUNT:,} images")
        if len(options.results) == 2:
            print(_compare(options.results), flush=True)
            return 0
        (results,) = options.results
        if options.rescore:
            from harness.rescore import rescore  # loads PyTorch, which tables do without

            sys.path.append(os.getcwd())  # the user's own networks
            rescore(results, options.count, networks=options.network)
        tables = make(results, reach=options.reach)
        print(screen(results))
        print(f"Tables: {tables}\nFigures: {results / 'figures'}")
        print(f"Report: {results / 'report.html'}", flush=True)
    except UserError as error:
        print(redacted(f"error: {error}"), file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and output.is_closed():
            return 1
        print(redacted(f"error: {error.filename}: {error.strerror or error}"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
