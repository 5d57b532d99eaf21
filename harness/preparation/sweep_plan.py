"""What a sweep asks for, kept next to its runs: the grid, the claims, looks that were not planned.

Tables are made from files alone, and a test is honest only if its question was fixed before.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from harness.plan.describe import notes, settings_text
from harness.plan.grid import expand
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.records.sweep_records import SweepRecord
from harness.storage.store import Store


def write_plan(sweep: Sweep, store: Store, runs: Sequence[Run]) -> None:
    """Write `sweep.json` for these runs of the sweep, and `sweep.yaml`.

    Once a run has begun, the family of claims stays as it was. Seeds that are added after a report
    was made are an unplanned look, unless `grid.seed: {up_to: …}` adds them.
    """
    folder, cells = sweep.name, [run.cell.as_dict() for run in runs]
    asked, looks = [claim.text for claim in sweep.claims], list[str]()
    family = asked
    with suppress(FileNotFoundError, ValidationError):  # a damaged plan is written again
        before = SweepRecord.model_validate_json(store.get(f"{folder}/sweep.json"))
        records = store.get_all(f"{folder}/runs/{run}/run.json" for run in before.runs or ())
        if any(content for _, content in records):
            family, looks = before.claims, before.looks
        planned = sweep.up_to is not None and before.up_to == sweep.up_to
        if not planned and store.exists(f"{folder}/report.html"):
            looks = looks + _added_seeds(before.cells, [c.as_dict() for c in expand(sweep)])
    record = SweepRecord(
        name=sweep.name,
        cells=cells,
        runs=[run.name for run in runs],
        notes=notes(sweep),
        claims=family,
        later=[text for text in asked if text not in family],
        up_to=sweep.up_to,
        looks=looks,
    )
    store.put(f"{folder}/sweep.json", record.to_json())
    store.put(f"{folder}/sweep.yaml", settings_text(sweep).encode())


def _added_seeds(before: list[dict[str, Any]], cells: list[dict[str, Any]]) -> list[str]:
    """Return a sentence on the seeds that patterns of an earlier grid have got since, if any."""

    def runs(of: list[dict[str, Any]]) -> set[tuple[str, int]]:
        return {(json.dumps(cell | {"seed": None}, sort_keys=True), cell["seed"]) for cell in of}

    patterns = {pattern for pattern, _ in runs(before)}
    added = {seed for pattern, seed in runs(cells) - runs(before) if pattern in patterns}
    if not added:
        return []
    return [
        f"An unplanned look: seeds {min(added)} to {max(added)} were added after a report had been "
        "made, so p-values are lower than they should be."
    ]
