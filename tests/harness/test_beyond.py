"""Sweeps beyond the paper, through the real command: the user's own functions, and pilots."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OWN = """
def outside_in(k):
    return [(1,), (k,), *((n,) for n in range(2, k))]

def last_but_peaky(values, stages):
    return max(range(len(values)), key=values.__getitem__), len(values) >= 2

def mean_distance(real, generated):
    return -(real.mean - generated.mean(dim=0)).norm().item()

def redness(images):
    return images[:, 0].mean(axis=(1, 2)) - images[:, 1:].mean(axis=(1, 2, 3))
"""

BASE = """
results: {results}
data: {{apples: {{source: builtin, set: apples, count: 45}}}}
image_size: 32
features: {{weights: random, input_size: 32}}
gan: {{width: 2, latent: 4}}
training: {{stage_epochs: 4, evaluate_every: 1, batch_size: 8, learning_rate: 0.01}}
score: {{classifier: trained, trained_on: [apples], count: 16, splits: 2{metrics}}}
resources: {{checkpoint_minutes: 0}}
"""


@pytest.fixture
def sweep(tmp_path):
    """Run the command on a file of `BASE` and `extra`; the run records by name."""

    def run(extra, metrics=""):
        path = tmp_path / "tiny.yaml"
        path.write_text(BASE.format(results=tmp_path / "results", metrics=metrics) + extra)
        found = subprocess.run(
            [sys.executable, str(ROOT / "harness" / "sweep.py"), str(path)],
            cwd=tmp_path,
            env=os.environ | {"RAY_ADDRESS": "local"},
            capture_output=True,
            text=True,
            timeout=500,
        )
        files = (tmp_path / "results" / "tiny").glob("runs/*/run.json")
        return found, [json.loads(file.read_text()) for file in sorted(files)]

    return run


def test_functions_of_the_users_own_on_every_axis(sweep, tmp_path):
    (tmp_path / "mine_for_test.py").write_text(OWN)
    found, runs = sweep(
        """
groups: {by: "mine_for_test:redness"}
stages: {criterion: "mine_for_test:last_but_peaky", watch: mean_distance}
grid:
- {mode: ["mine_for_test:outside_in"], seed: [0]}
- {mode: [random], seed: [0], stages.change: [replace]}
""",
        metrics=", metrics: ['mine_for_test:mean_distance']",
    )
    assert found.returncode == 0, found.stderr
    own, random = sorted(runs, key=lambda run: run["cell"]["mode"])
    assert [stage["groups"] for stage in own["stages"]] == [[1], [1, 3], [1, 3, 2]]
    assert [stage["groups"] for stage in random["stages"]] == [[1], [2], [3]]
    for run in runs:
        assert [stage["epochs"] for stage in run["stages"]] == [2, 2, 2]  # the criterion ends them
        for stage in run["stages"]:
            watched = {
                e["epoch"]: e["metrics"]["mean_distance"]
                for e in run["evaluations"]
                if e["stage"] == stage["stage"]
            }
            assert stage["peak_epoch"] == max(watched, key=watched.__getitem__)


def test_a_pilot_stops_runs_and_says_so_and_is_done_afterwards(sweep):
    pilot = """
pilot: {grace: 1, keep_one_in: 2}
grid: {mode: [conventional], seed: [0, 1, 2, 3, 4, 5]}
"""
    found, runs = sweep(pilot)
    assert found.returncode == 0, found.stderr
    statuses = [run["status"] for run in runs]
    assert {*statuses} == {"finished", "stopped"}
    stopped = [run for run in runs if run["status"] == "stopped"]
    assert all(1 <= run["epochs_spent"] < 12 and run["best_score"] for run in stopped)
    assert all("pilot" in run["reason"] for run in stopped)
    again, same = sweep(pilot)
    assert "runs: 6 done, 0 half done, 0 missing" in again.stderr
    assert [run["status"] for run in same] == statuses
