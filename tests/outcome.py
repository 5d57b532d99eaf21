"""What of a sweep's folder must not depend on disturbance."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

WEIGHTS = ("generator.safetensors", "last_generator.safetensors")


def records(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the run records of a sweep's folder by name."""
    found = sorted(sweep.glob("runs/*/run.json"))
    return {path.parent.name: json.loads(path.read_bytes()) for path in found}


def rescored(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return what was measured again by run."""
    found = sorted(sweep.glob("runs/*/rescored.json"))
    return {path.parent.name: json.loads(path.read_bytes()) for path in found}


def outcome(sweep: Path) -> dict[str, Any]:
    """Return tables, records, generators and what was measured again, without durations."""
    found: dict[str, Any] = {"rescored": rescored(sweep)}
    for table in sorted(sweep.glob("tables/*.csv")):
        rows = list(csv.reader(table.read_text().splitlines()))
        timed = {i for i, name in enumerate(rows[0]) if "seconds" in name}
        timed |= {i + 1 for i in timed}  # and their standard deviation
        found[table.name] = [[c for i, c in enumerate(row) if i not in timed] for row in rows]
    for name, record in records(sweep).items():
        for evaluation in record["evaluations"]:
            del evaluation["images_per_second"]
        generators = [(sweep / "runs" / name / file).read_bytes() for file in WEIGHTS]
        found[name] = [record[key] for key in ("status", "stages", "evaluations")] + generators
    return found
