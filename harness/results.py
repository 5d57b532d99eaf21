"""COMMAND: tables, figures and report of a sweep: `python harness/results.py RESULTS [RESULTS]`.

Reads run records and their neighbours alone; needs no Ray and no GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from featgan.errors import UserError
from harness.cli import exit_code
from harness.records.sweep_results import Outcome
from harness.report.build import make, screen
from harness.report.comparison import comparison_tables, unmatched

MOST_COUNT = 1_000_000
"""Images of a re-score: their classes' logits take 4 GB."""


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
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if len(options.results) > 2:
        raise UserError("more than two folders; give one sweep, or two to compare")
    if options.count is not None and not 1 <= options.count <= MOST_COUNT:
        raise UserError(f"--count {options.count}: a re-score takes 1 to {MOST_COUNT:,} images")
    if len(options.results) == 2:
        print(_compare(options.results))
        return 0
    (results,) = options.results
    if options.rescore:
        from harness.runs.rescore import rescore  # loads PyTorch, which tables do not need

        rescore(results, options.count, networks=options.network)
    try:
        tables = make(results, reach=options.reach)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{error.filename}: {error.strerror}; remove it") from error
    print(screen(results))
    print(f"Tables: {tables}\nFigures: {results / 'figures'}")
    print(f"Report: {results / 'report.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
