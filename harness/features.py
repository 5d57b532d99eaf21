"""COMMAND: count and group the images of a sweep: `python harness/features.py FILE`.

Prints figure 9 and tables 2 and 3 of the paper; trains nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # no module of this folder shadows a library

from harness.cli import add_scale, exit_code, install_signal_handlers, sweep_lock
from harness.display import Screen
from harness.plan import checks
from harness.plan.load import load
from harness.plan.settings import Sweep
from harness.storage.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and group a sweep's data sets; print figure 9, tables 2 and 3 of the paper."""
    parser = argparse.ArgumentParser(prog="harness/features.py", description=main.__doc__)
    parser.add_argument("file", help="a sweep file, such as sweeps/quickstart.yaml")
    add_scale(parser)
    options = parser.parse_args(arguments)

    return exit_code(lambda: count_and_group(load(options.file, options.scale), Screen()))


def count_and_group(sweep: Sweep, screen: Screen) -> int:
    """Count and group a sweep's data sets, and print the tables; return the exit code."""
    # here, so that --help and a refused file do not wait for Ray and PyTorch
    from harness.cluster import connect
    from harness.cluster.preflight import check_cluster
    from harness.preparation.prepare import prepare_groups
    from harness.records.sweep_results import SweepResults
    from harness.report import figures
    from harness.report.paper_tables import group_tables
    from harness.storage.local_copy import mirrored

    checks.check_environment(sweep, checks.image_files(sweep))
    store = Store(sweep.results)
    with sweep_lock(store, sweep.name, screen):
        with connect.session(screen) as engine:
            gpus = connect.gpus_per_run(engine, sweep.resources.gpus_per_run)
            check_cluster(store, {"CPU": 1, "GPU": 0}, files=checks.image_files(sweep))
            prepare_groups(sweep, store, gpus > 0, screen.features)
        with mirrored(store, sweep.name) as folder:
            results = SweepResults(folder)
            figures.draw(results, folder / "figures")
            print(*(table.text() for table in group_tables(results)), sep="\n")
    print(f"figure 9: {store.join(f'{sweep.name}/figures/feature-counts.png')}", flush=True)
    return 0


if __name__ == "__main__":
    install_signal_handlers()
    sys.exit(main())
