"""COMMAND: tables, figures and report of a sweep: `python harness/results.py RESULTS [RESULTS]`.

Reads run records and the files next to them; needs no Ray and no GPU.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from pydantic import ValidationError

from featgan.errors import UserError
from featgan.scores.settings import ScoreSettings
from harness.cli import exit_code
from harness.storage.sealed import first_problem

MOST_COUNT = 1_000_000
"""Images of a re-score: their classes' logits take 4 GB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python harness/results.py",
        description="Tables and figures of a sweep; of two sweeps, a comparison.",
    )
    add = parser.add_argument
    add("results", type=Path, nargs="+", help="folder of a sweep (results/quickstart), or two")
    add("--rescore", action="store_true", help="first measure every finished run's generator again")
    add("--count", type=int, help="images of a re-score (50,000 on a GPU)")
    add("--network", action="append", default=[], help="MODULE:FUNCTION that a re-score may import")
    add("--metrics", help="further metrics of a re-score, such as fid,kid")
    add("--features", default="classifier", help="their features, as in score.features")
    add("--features-weights", metavar="FILE", help="weights for these features")
    add("--reach", type=float, help="report epochs and seconds until this score was reached")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    """Do what the options ask for; modules that load heavy libraries are imported here."""
    folder, *others = options.results
    if len(others) > 1:
        raise UserError("more than two folders; give one sweep, or two to compare")
    if options.count is not None and not 1 <= options.count <= MOST_COUNT:
        raise UserError(f"--count {options.count}: a re-score takes 1 to {MOST_COUNT:,} images")
    if others and (options.rescore or options.metrics):
        raise UserError("a re-score takes one folder, not two")
    if (options.features != "classifier" or options.features_weights) and not options.metrics:
        raise UserError("--features: needs --metrics, such as --metrics fid,kid")
    further = None
    if options.metrics:
        asked = {name: vars(options)[name] for name in ("features", "features_weights")}
        try:
            further = ScoreSettings(metrics=options.metrics.split(","), **asked)
        except ValidationError as error:
            raise UserError(f"--metrics: {first_problem(error)}") from None
    if others:
        from harness.records.sweep_results import SweepResults
        from harness.report.comparison import comparison

        for table in comparison(*map(SweepResults, options.results)):
            print(table.text())
        return 0
    if options.rescore or options.metrics:
        from harness.runs.rescore import rescore

        rescore(folder, options.count, networks=options.network, further=further)
    from harness.report import build

    try:
        results = build.make(folder, options.reach)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{error.filename}: {error.strerror}; remove it") from error
    print(build.summary(results, folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
