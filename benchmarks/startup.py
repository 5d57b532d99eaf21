"""Seconds until the commands answer, and the packages whose import takes most of them.

    python benchmarks/startup.py [RESULTS] [--runs 5]      half a minute

RESULTS is the folder of a finished sweep, such as `results/quickstart`; `results.py` works on a
copy of it. Each time is a median of fresh processes, next to its goal on a quiet machine with two
cores. The costs are self times of modules, summed by package, of one more process. Modules are
compiled before, as they are after the first start on a machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = tempfile.TemporaryDirectory()
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": CACHE.name}
SHOWN = 4
"""Packages shown for each command."""


def main() -> None:
    """Print a row for each command as soon as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, help="folder of a finished sweep")
    parser.add_argument("--runs", type=int, default=5, help="processes of each median")
    options = parser.parse_args()
    print(f"{'':22}{'seconds':>8}{'goal':>6}  imports")
    with tempfile.TemporaryDirectory() as folder:
        refused = Path(folder) / "refused.yaml"
        refused.write_text("image_size: 33\n")
        row("--help", 0.6, ["sweep.py", "--help"], options.runs)
        row("refused file", 1.0, ["sweep.py", str(refused)], options.runs, code=2)
        paper = str(ROOT / "sweeps" / "paper.yaml")
        row("--dry-run, paper.yaml", 1.5, ["sweep.py", paper, "--dry-run"], options.runs)
        if options.results:
            copy = shutil.copytree(options.results, Path(folder) / options.results.name)
            row("results.py", 4.0, ["results.py", str(copy)], options.runs)


def row(name: str, goal: float, arguments: list[str], runs: int, code: int = 0) -> None:
    """Measure a command that exits with `code`, and print its row."""
    run(arguments, code)  # compiles the modules
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run(arguments, code)
        seconds.append(time.perf_counter() - started)
    packages: Counter[str] = Counter()
    for line in run(arguments, code, "-X", "importtime").splitlines():
        own, _, module = line.removeprefix("import time:").split("|") if "|" in line else [""] * 3
        if own.strip().isdigit():
            packages[module.strip().partition(".")[0]] += int(own)
    costs = ", ".join(f"{package} {us / 1e6:.2f}" for package, us in packages.most_common(SHOWN))
    print(f"{name:22}{statistics.median(seconds):8.2f}{goal:6.1f}  {costs}", flush=True)


def run(arguments: list[str], code: int, *flags: str) -> str:
    """Run a command in a fresh process; return what it wrote to standard error."""
    command = [sys.executable, *flags, str(ROOT / "harness" / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
    return done.stderr


if __name__ == "__main__":
    main()
