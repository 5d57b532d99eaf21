"""COMMAND: count features and group the images of a sweep: `python harness/features.py FILE`.

Prints figure 9 and tables 2 and 3 of the paper; trains nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from featgan.features.groups import FeatureGroups
from harness.cli import add_scale, alone, exit_code, heed_signals
from harness.cluster import connect
from harness.counting.boundaries import boundary_table
from harness.display import Screen
from harness.plan import checks
from harness.plan.settings import Sweep, load
from harness.storage.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: count and group a sweep's data sets; figure 9, tables 2 and 3 of the paper."""
    parser = argparse.ArgumentParser(prog="harness/features.py", description=main.__doc__)
    parser.add_argument("file", help="a sweep file, such as sweeps/quickstart.yaml")
    add_scale(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _carry_out(load(options.file, options.scale)))


def _carry_out(sweep: Sweep) -> int:
    """Count, group and show."""
    store, screen = Store(sweep.results), Screen()
    from harness.cluster.preflight import preflight
    from harness.preparation.prepare import prepare_groups

    checks.look_up_functions(sweep)
    checks.refuse_results_among_images(sweep)
    with alone(store, sweep.name, screen):
        try:
            engine = connect.connect()
            preflight(store, files=checks.image_files(sweep), notice=screen.say)
            prepare_groups(sweep, store, engine.gpus > 0, screen.features)
        finally:
            screen.end()
            connect.shutdown()
        print(_report(store, sweep.name), flush=True)
    return 0


def _report(store: Store, sweep: str) -> str:
    """Draw figure 9; tables 2 and 3, and how many images lie near a boundary, as text."""
    from harness.records.sweep_results import Outcome
    from harness.report import figures
    from harness.report.paper_tables import group_tables
    from harness.storage.local_copy import mirrored

    with mirrored(store, sweep) as folder:
        outcome = Outcome.read(folder)
        figures.draw(outcome, folder / "figures")
        tables = group_tables(outcome)
        for record in outcome.count_groups:
            groups = FeatureGroups.from_json(record.model_dump_json())
            tables.append(boundary_table(f"{record.data}: {record.title}", groups))
        text = "\n".join(table.text() for table in tables)
    return f"{text}\nfigure 9: {store.join(f'{sweep}/figures/feature-counts.png')}"


if __name__ == "__main__":
    heed_signals()
    sys.exit(main())
