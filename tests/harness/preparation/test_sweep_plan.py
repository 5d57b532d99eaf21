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
LIMIT = "the limit `up_to` was changed after runs had begun"
FEWER = "descending < conventional in epochs_to_peak"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def written(
    store: Store, seed: object, *claims: str, modes: tuple[str, ...] = (), data: str = "a"
) -> SweepRecord:
    grid = {"mode": ["conventional", "descending", *modes], "seed": seed}
    content = {
        "name": "s",
        "data": {name: {"source": "builtin", "set": "digits"} for name in data},
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
    assert len(written(store, [0, 1]).tests) == 4  # the paper's on these two modes
    before = written(store, [0, 1], END)
    assert (before.tests, before.later) == ([f"{END} on a"], [])
    begin(store, before)
    after = written(store, [0, 1], FEWER, END)
    assert (after.tests, after.later) == ([f"{END} on a"], [f"{FEWER} on a"])
    assert written(store, [0, 1], FEWER).tests == [f"{END} on a"]


def test_data_sets_added_once_a_run_has_begun_are_not_of_the_family(store: Store) -> None:
    begin(store, written(store, [0, 1], END))
    plan = written(store, [0, 1], END, data="ab")
    assert (plan.tests, plan.later) == ([f"{END} on a"], [f"{END} on b"])
    assert written(store, [0, 1], END, data="b").tests == [f"{END} on a"]


def test_seeds_changed_after_a_report_are_an_unplanned_look(store: Store) -> None:
    begin(store, written(store, [0, 1]))
    assert written(store, [0, 1, 2]).looks == []  # nobody has seen a result
    store.put("s/report.html", b"")
    assert written(store, [0, 1, 2], modes=("random",)).looks == []  # no seeds, but a mode
    (look,) = written(store, [0, 1, 2, 5, 7], modes=("random",)).looks
    assert look == "seeds were added or taken out after a report had been made: 5, 7"
    assert written(store, [0, 1, 2, 5, 7]).looks == [look]
    assert written(store, [1, 2, 5, 7]).looks[1].endswith("made: 0")
    assert len(written(store, {"up_to": 12}).looks) == 3


def test_seeds_that_up_to_adds_are_planned_but_not_another_limit(store: Store) -> None:
    begin(store, written(store, {"up_to": 8}))
    plan = written(store, {"up_to": 8})
    assert (plan.up_to, plan.looks) == (8, [])
    assert written(store, [*range(8)]).looks == [LIMIT]
    begin(store, written(store, {"up_to": 8}))
    assert written(store, {"up_to": 10}).looks[-1] == LIMIT


def test_a_damaged_plan_is_written_again(store: Store) -> None:
    plan = written(store, [0])
    store.put("s/sweep.json", json.dumps({"tests": 3}).encode())
    assert written(store, [0]) == plan
