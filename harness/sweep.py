"""The main job: `python harness/sweep.py [FILE]`, from a sweep file to its tables.

Prepare, run, report. Rerun the same command and it continues: runs that are done are not
done again, half-done ones go on from their checkpoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from harness.cli import add_scale, alone, exit_code, heed_signals, spelled
from harness.cluster import connect
from harness.display import Counts, Screen
from harness.plan import checks
from harness.plan.estimate import describe, probe
from harness.plan.settings import Cell, Sweep, load
from harness.records.sweep_records import SweepRecord
from harness.report import build
from harness.storage.local_copy import mirrored
from harness.storage.redaction import redacted, redacted_tree
from harness.storage.store import Store

DEFAULT = Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 0 done, 1 runs failed or stopped, 2 a user's mistake."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        sweep = load(options.file, options.scale)
        checks.refuse_results_among_images(sweep)
        if options.dry_run or options.probe:
            print(resolved(sweep), redacted(describe(sweep)), sep="\n")
            if options.probe:
                print(probe(sweep))
            return 0
        return carry_out(sweep, Screen())

    return exit_code(work)


def carry_out(sweep: Sweep, screen: Screen) -> int:
    """Prepare, run and report a sweep; the command's exit code."""
    store = Store(sweep.results)
    from harness.cluster.preflight import preflight
    from harness.preparation.prepare import prepare_runs
    from harness.runs import tune

    cells = sweep.cells()
    checks.look_up_functions(sweep)
    screen.say(f"{sweep.name}: {len(cells)} runs, results in {store.join(sweep.name)}")
    with alone(store, sweep.name, screen):
        try:
            engine = connect.connect()
            gpus_per_run = connect.gpus_per_run(engine, sweep.resources.gpus_per_run, screen.say)
            screen.say(f"each run: {sweep.resources.cpus_per_run} CPU, {gpus_per_run:g} GPU")
            preflight(
                store,
                files=checks.files(sweep),
                cpus_per_run=sweep.resources.cpus_per_run,
                gpus_per_run=gpus_per_run,
                may_grow=engine.address is not None,
                notice=screen.say,
            )
            grid = prepare_runs(sweep, store, gpus_per_run > 0, screen.features)
            _describe(sweep, store, cells, [run.name for run in grid])
            counts = Counts(total=len(grid))
            standing = tune.split(store, grid, sweep.pilot, counts)
            todo = standing.half_done + standing.missing
            counts.done = len(standing.done)
            screen.say(
                f"runs: {counts.done} done, {len(standing.half_done)} half done, "
                f"{len(standing.missing)} missing"
            )
            screen.begin()
            completed = tune.carry_out(
                todo,
                store,
                sweep.resources,
                gpus_per_run=gpus_per_run,
                sample_every=sweep.sample_every,
                screen=screen,
                counts=counts,
                pilot=sweep.pilot,
                shares=standing.shares,
            )
            unfinished = len(grid) - len(tune.split(store, grid, sweep.pilot).done)
        finally:
            screen.end()
            connect.shutdown()
        print(report(sweep, store), flush=True)
    if unfinished:
        what = "are not finished" if completed else "were stopped"
        screen.say(
            f"{unfinished} of {len(grid)} runs {what}: the same command continues them: {spelled()}"
        )
    return 1 if unfinished else 0


def report(sweep: Sweep, store: Store) -> str:
    """Write the tables and figures of what is there; the main tables as text."""
    with mirrored(store, sweep.name) as folder:
        build.make(folder)
        text = build.screen(folder)
    places = {
        "report": store.join(f"{sweep.name}/report.html"),
        "tables": store.join(f"{sweep.name}/tables/tables.md"),
        "figures": store.join(f"{sweep.name}/figures"),
        "curves": f"tensorboard --logdir {store.join(sweep.name)}",
    }
    return text + "\n" + "\n".join(f"{name + ':':9}{place}" for name, place in places.items())


def resolved(sweep: Sweep) -> str:
    """What `--dry-run` prints: every setting, the grid, the number of runs."""
    cells = sweep.cells()
    lines = [_settings(sweep)]
    for grid in sweep.grid:
        axes = {"data": grid.data or [*sweep.data], **grid.model_dump(exclude={"data"})}
        lines.append("grid:")
        lines += [f"  {key}: {', '.join(map(str, values))}" for key, values in axes.items()]
    return "\n".join([*lines, f"runs: {len(cells)}"])


def _describe(sweep: Sweep, store: Store, cells: list[Cell], names: list[str]) -> None:
    """Leave beside the runs what was asked for: tables are made from files alone."""
    plan = SweepRecord(
        name=sweep.name,
        cells=[cell.as_dict() for cell in cells],
        runs=names,
        notes=_notes(sweep),
    )
    store.put(f"{sweep.name}/sweep.json", plan.to_json())
    store.put(f"{sweep.name}/sweep.yaml", _settings(sweep).encode())


def _settings(sweep: Sweep) -> str:
    """Every setting as YAML; secrets in addresses are hidden."""
    settings = redacted_tree(sweep.model_dump(mode="json"))
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _notes(sweep: Sweep) -> list[str]:
    """Plain words on what makes this sweep's numbers differ from the literature's."""
    notes, methods = [], [cell.method for cell in sweep.cells()]
    if any(method.features.weights == "random" for method in methods):
        notes.append(
            "Feature counts come from a VGG16 with random weights: they order images by "
            "variety, but are not the counts of the trained network."
        )
    if sweep.score.classifier == "trained":
        notes.append(
            "The Inception Score uses a small CNN trained on the labels of "
            f"{' and '.join(sweep.score.trained_on or [])}: it compares the runs of this sweep "
            "with each other, and with no published score."
        )
    if sweep.pilot:
        notes.append("A pilot: runs whose scores fell behind were stopped; no basis for results.")
    if not all(method.training.deterministic for method in methods):
        notes.append("Deterministic algorithms were off: a run repeated may differ.")
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run a sweep, or go on with it.")
    parser.add_argument(
        "file", nargs="?", type=Path, default=DEFAULT, help=f"sweep file (default: {DEFAULT.name})"
    )
    add_scale(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print settings, grid, number of runs and what they cost; run nothing",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="dry run that also times real steps for half a minute: hours, runs that fit",
    )
    return parser


if __name__ == "__main__":
    heed_signals()
    sys.exit(main())
