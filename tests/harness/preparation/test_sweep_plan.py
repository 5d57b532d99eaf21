"""What `sweep.json` keeps of a sweep that changes between its calls."""

import json
from pathlib import Path

import pytest

from harness.plan.grid import expand
from harness.plan.run import Run
from harness.plan.settings import Sweep
from harness.preparation.sweep_plan import write_plan
from harness.records.sweep_records import SweepRecord
from harness.storage.store import Store

END = "conventional > descending in end_score"
FEWER = "descending < conventional in epochs_to_peak"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def written(store: Store, seed: object, *claims: str, modes: tuple[str, ...] = ()) -> SweepRecord:
    grid = {"mode": ["conventional", "descending", *modes], "seed": seed}
    content = {
        "name": "s",
        "data": {"a": {"source": "builtin", "set": "digits"}},
        "grid": grid,
        "verdict": {"claims": list(claims) or None},
    }
    sweep = Sweep.model_validate(content)
    runs = [Run("s", cell, "0a", "features/a", "groups", None) for cell in expand(sweep)]
    write_plan(sweep, store, runs)
    return SweepRecord.model_validate_json(store.get("s/sweep.json"))


def begin(store: Store, plan: SweepRecord) -> None:
    assert plan.runs
    store.put(f"s/runs/{plan.runs[-1]}/run.json", b"{}")


def test_the_family_is_fixed_once_a_run_has_begun(store: Store) -> None:
    assert len(written(store, [0, 1]).claims) == 4  # the paper's on these two modes
    before = written(store, [0, 1], END)
    assert (before.claims, before.later) == ([END], [])
    begin(store, before)
    after = written(store, [0, 1], FEWER, END)
    assert (after.claims, after.later) == ([END], [FEWER])
    assert written(store, [0, 1], FEWER).claims == [END]


def test_seeds_added_after_a_report_are_an_unplanned_look(store: Store) -> None:
    begin(store, written(store, [0, 1]))
    assert written(store, [0, 1, 2]).looks == []  # nobody has seen a result
    store.put("s/report.html", b"")
    assert written(store, [0, 1, 2], modes=("random",)).looks == []  # no seeds, but a mode
    (look,) = written(store, [0, 1, 2, 5, 7], modes=("random",)).looks
    assert "seeds 5 to 7 were added after a report" in look
    assert written(store, [0, 1, 2, 5, 7]).looks == [look]
    assert len(written(store, {"up_to": 12}).looks) == 2


def test_seeds_that_up_to_adds_are_planned_but_not_a_higher_limit(store: Store) -> None:
    begin(store, written(store, {"up_to": 6}))
    store.put("s/report.html", b"")
    plan = written(store, {"up_to": 6})
    assert (plan.up_to, plan.looks) == (6, [])
    assert "seeds 6 to 7 were added" in written(store, {"up_to": 8}).looks[0]


def test_a_damaged_plan_is_written_again(store: Store) -> None:
    plan = written(store, [0])
    store.put("s/sweep.json", json.dumps({"claims": 3}).encode())
    assert written(store, [0]) == plan
