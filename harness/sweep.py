"""COMMAND: run a sweep, from its file to its tables: `python harness/sweep.py [FILE]`.

Prepare, run, report. Run the same command again to continue: finished runs are not repeated,
and interrupted ones continue from their checkpoints.
"""

import argparse
import shlex
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from featgan.errors import UserError
from harness.cli import add_scale, command_line, exit_code, install_signal_handlers, sweep_lock
from harness.display import Screen
from harness.plan import checks
from harness.plan.describe import describe, estimate_text
from harness.plan.grid import expand
from harness.plan.image_folders import sweep_file
from harness.plan.load import load
from harness.plan.run import Run
from harness.plan.settings import FEWEST_SEEDS, Sweep
from harness.storage.store import Store

DEFAULT = Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if runs failed or were stopped, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description="Run a sweep, or continue it.")
    parser.add_argument(
        "file", nargs="?", type=Path, default=DEFAULT, help=f"sweep file (default: {DEFAULT.name})"
    )
    parser.add_argument(
        "--images",
        action="append",
        metavar="FOLDER",
        help="run the quickstart's method on the images in a folder, or several; writes the file",
    )
    add_scale(parser)
    parser.add_argument("--dry-run", action="store_true", help="print settings, grid and work")
    parser.add_argument("--probe", action="store_true", help="also measure hours and memory")
    options = parser.parse_args(arguments)

    if options.images and options.file != DEFAULT:
        parser.error("give a file or --images, not both")

    def work() -> int:
        file = options.file
        if options.images:
            file, lines = sweep_file(options.images, DEFAULT)
            print(*lines, sep="\n", file=sys.stderr)
        sweep = load(file, options.scale)
        if not (options.dry_run or options.probe):
            if code := run_sweep(sweep, Screen()):
                return code
            if file == DEFAULT:
                command = shlex.join([sys.orig_argv[0], sys.argv[0]])
                print(f"next:    {command} --images FOLDER, the same for your own images")
            return 0
        print(describe(sweep), flush=True)
        checks.check_environment(sweep, checks.required_files(sweep))
        print(estimate_text(sweep))
        if sweep.verdict.difference:
            print(seeds_needed(sweep))
        if options.probe:
            from harness.runs.probe import probe

            print(probe(sweep))
        return 0

    return exit_code(work)


def run_sweep(sweep: Sweep, screen: Screen) -> int:
    """Prepare, run and report a sweep; return the command's exit code."""
    checks.check_environment(sweep, checks.required_files(sweep))
    store, pilot = Store(sweep.results), sweep.pilot is not None
    amount = f"{'at most ' if sweep.up_to else ''}{len(expand(sweep))} runs"
    screen.say(f"{sweep.name}: {amount}, results in {store.join(sweep.name)}")

    # here, so that --help and a refused file do not wait for Ray and PyTorch
    from harness.cluster import connect
    from harness.cluster.preflight import check_cluster
    from harness.preparation.prepare import prepare_runs
    from harness.preparation.sweep_plan import write_plan
    from harness.report import build
    from harness.runs.rescore_tasks import rescore_runs
    from harness.runs.status import classify_runs
    from harness.runs.tune import run_pending
    from harness.storage.local_copy import mirrored

    runs, completed, unfinished, unscored = list[Run](), True, 0, 0
    with sweep_lock(store, sweep.name, screen):
        if done := finished_runs(sweep, store):
            write_plan(sweep, store, done)
            screen.say(f"runs: {len(done)} done, 0 half done, 0 missing")
        else:
            with connect.session(screen) as engine:
                # prepare
                gpus_per_run = connect.gpus_per_run(engine, sweep.resources.gpus_per_run)
                screen.say(f"each run: {sweep.resources.cpus_per_run} CPU, {gpus_per_run:g} GPU")
                check_cluster(
                    store,
                    {"CPU": sweep.resources.cpus_per_run, "GPU": gpus_per_run},
                    files=checks.required_files(sweep),
                    joining=connect.nodes_to_join(engine),
                )
                everything = prepare_runs(sweep, store, gpus_per_run > 0, screen.features)
                missing = {run.name for run in classify_runs(store, everything, pilot).missing}
                for runs in looks(everything, missing, sweep.up_to):
                    write_plan(sweep, store, runs)
                    # run
                    progress = classify_runs(store, runs, pilot)
                    screen.say(
                        f"runs: {progress.done} done, {len(progress.unfinished)} half done, "
                        f"{len(progress.missing)} missing"
                    )
                    screen.begin()
                    completed = run_pending(sweep, progress, store, gpus_per_run, screen)
                    unfinished = len(classify_runs(store, runs, pilot).pending)
                    if completed and sweep.rescore:
                        unscored = rescore_runs(sweep, store, gpus_per_run, screen)
                    if not completed or unfinished or unscored:
                        break
                    if sweep.up_to and all_decided(sweep, store, screen):
                        break
        with mirrored(store, sweep.name) as folder:
            print(build.summary(build.make(folder), store.join(sweep.name)), flush=True)
    if not (unfinished or unscored):
        return 0
    state = "are not finished" if completed else "were stopped"
    state = state if unfinished else "are not re-scored"
    again = f"run the same command again to continue: {command_line()}"
    screen.say(f"{unfinished or unscored} of {len(runs)} runs {state}; {again}")
    return 1


def finished_runs(sweep: Sweep, store: Store) -> list[Run]:
    """Return the runs of a sweep of which nothing is left to do, found without Ray; else none."""
    from ray.exceptions import RaySystemError

    from harness.preparation.prepare import prepare_runs
    from harness.runs.rescore_tasks import find_unscored
    from harness.runs.status import classify_runs

    if sweep.up_to or not store.exists(f"{sweep.name}/report.html"):
        return []
    with suppress(RaySystemError):  # something is to be made, and Ray is not started
        runs, pilot = prepare_runs(sweep, store, False, lambda *_: None), sweep.pilot is not None
        unscored = sweep.rescore and find_unscored(sweep, store, False)[2]
        if not (unscored or classify_runs(store, runs, pilot).pending):
            return runs
    return []


def looks(runs: list[Run], missing: Container[str], up_to: int | None) -> Iterator[list[Run]]:
    """Yield the runs of each look at the results: all; with `up_to`, one more seed each time.

    The first look is at all seeds of which a run is not `missing`: those before led on to it.
    """
    if up_to is None:
        yield runs
        return
    begun = max((1 + run.cell.seed for run in runs if run.name not in missing), default=0)
    for seeds in range(max(FEWEST_SEEDS, begun), up_to + 1):
        yield [run for run in runs if run.cell.seed < seeds]


def all_decided(sweep: Sweep, store: Store, screen: Screen) -> bool:
    """Show what is decided so far; return whether no claim is open."""
    from harness.records.sweep_results import SweepResults
    from harness.report.claims import answers
    from harness.storage.local_copy import mirrored

    with mirrored(store, sweep.name) as folder:
        found = answers(SweepResults(folder))
    undecided = sum(answer.verdict.startswith(("undecided", "not decided")) for answer in found)
    decided = [a.sentence for a in found if a.verdict.startswith(("supported", "contradicted"))]
    screen.say("\n".join([*decided, f"{undecided} claims are undecided"]))
    return not undecided


def seeds_needed(sweep: Sweep) -> str:
    """Return how many seeds find `verdict.difference`, from the deviations of earlier runs."""
    # here, so that a dry run without this question does not wait for SciPy and pandas
    from harness.plan.grid import family
    from harness.plan.power import seeds_text
    from harness.records.sweep_results import SweepResults
    from harness.report.claims import deviations
    from harness.sources.folder import absolute
    from harness.storage.local_copy import mirrored

    earlier = sweep.verdict.sd_from
    place = absolute(earlier or f"{sweep.results}/{sweep.name}")
    root, _, name = place.rstrip("/").rpartition("/")
    try:
        with mirrored(Store(root or "/"), name) as folder:
            results = SweepResults(folder)
        known, fixed = deviations(results, sweep.claims), [] if earlier else results.plan.tests
    except UserError:
        if earlier:
            raise
        known, fixed = {}, []  # nothing has run yet
    return seeds_text(sweep, len(fixed or family(sweep)), known)


if __name__ == "__main__":
    install_signal_handlers()
    sys.exit(main())
