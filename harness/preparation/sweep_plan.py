"""What a sweep asks for, kept next to its runs: the grid, the claims, looks that were not planned.

Tables are made from files alone, and a test is honest only if its question was fixed before.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from harness.plan.describe import notes, settings_text
from harness.plan.grid import expand, family
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.records.sweep_records import SweepRecord
from harness.storage.store import Store


def write_plan(sweep: Sweep, store: Store, runs: Sequence[Run]) -> None:
    """Write `sweep.json` for these runs of the sweep, and `sweep.yaml`.

    Once a run has begun, the family of tests stays as it was. Seeds that are added or taken out
    after a report was made are an unplanned look, as is another limit than `up_to` had; seeds that
    `grid.seed: {up_to: …}` adds are not.
    """
    folder, cells = sweep.name, [run.cell.as_dict() for run in runs]
    asked, looks = family(sweep), list[str]()
    fixed = asked
    with suppress(FileNotFoundError, ValidationError):  # a damaged plan is written again
        before = SweepRecord.model_validate_json(store.get(f"{folder}/sweep.json"))
        records = store.get_all(f"{folder}/runs/{run}/run.json" for run in before.runs or ())
        if any(content for _, content in records):
            fixed, looks = before.tests, before.looks
            if before.up_to not in (None, sweep.up_to):
                looks = [*looks, "the limit `up_to` was changed after runs had begun"]
            elif before.up_to is None and store.exists(f"{folder}/report.html"):
                looks = looks + _changed_seeds(before.cells, [c.as_dict() for c in expand(sweep)])
    record = SweepRecord(
        name=sweep.name,
        cells=cells,
        runs=[run.name for run in runs],
        notes=notes(sweep),
        tests=fixed,
        later=[test for test in asked if test not in fixed],
        up_to=sweep.up_to,
        looks=looks,
    )
    store.put(f"{folder}/sweep.json", record.to_json())
    store.put(f"{folder}/sweep.yaml", settings_text(sweep).encode())


def _changed_seeds(before: list[dict[str, Any]], present: list[dict[str, Any]]) -> list[str]:
    """Return words on the seeds that patterns of both grids have got or lost since, if any."""
    grids = [
        {(json.dumps(cell | {"seed": None}, sort_keys=True), cell["seed"]) for cell in cells}
        for cells in (before, present)
    ]
    kept = {pattern for pattern, _ in grids[0]} & {pattern for pattern, _ in grids[1]}
    changed = sorted({seed for pattern, seed in grids[0] ^ grids[1] if pattern in kept})
    what = "seeds were added or taken out after a report had been made"
    return [f"{what}: {', '.join(map(str, changed))}"] if changed else []
