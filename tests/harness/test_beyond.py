"""Sweeps beyond the paper, through the real command: user-defined functions, and pilots."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from featgan.features.groups import FeatureGroups
from featgan.images.pack import ImagePack, shard_bytes
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Score, load_classifier
from featgan.scores.small_cnn import train_classifier
from featgan.trainer import StagedTrainer
from featgan.user_code import resolve
from harness.plan.grid import expand
from harness.plan.load import load

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
def sweep(commands, tmp_path):
    """Run the command on a file of `BASE` and `extra`; return it and the run records."""

    def run(extra, metrics=""):
        path = tmp_path / "tiny.yaml"
        path.write_text(BASE.format(results=tmp_path / "results", metrics=metrics) + extra)
        found = commands.run("sweep", path, cwd=tmp_path)
        files = (tmp_path / "results" / "tiny").glob("runs/*/run.json")
        return found, [json.loads(file.read_text()) for file in sorted(files)]

    return run


def test_user_defined_functions_on_every_axis(sweep, tmp_path):
    (tmp_path / "mine_for_test.py").write_text(OWN)
    (code, _, err), runs = sweep(
        """
groups: {by: "mine_for_test:redness"}
stages: {criterion: "mine_for_test:last_but_peaky", watch: mean_distance}
grid:
- {mode: ["mine_for_test:outside_in"], seed: [0]}
- {mode: [random], seed: [0], stages.change: [replace]}
""",
        metrics=", metrics: ['mine_for_test:mean_distance']",
    )
    assert code == 0, err
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


def test_the_functions_of_the_docs_train_as_documented(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "beyond.md").read_text()
    (mine,) = re.findall(r"```python\n# mine\.py\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"```yaml\n(groups: .*?)```", page, re.DOTALL)
    (tmp_path / "mine.py").write_text(mine)
    monkeypatch.syspath_prepend(tmp_path)
    content = yaml.safe_load(BASE.format(results=tmp_path, metrics=""))
    for key, value in yaml.safe_load(shown).items():
        content[key] = content.get(key, {}) | value
    content["image_size"] = 32
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))

    images = np.random.default_rng(0).integers(0, 256, (45, 3, 32, 32), np.uint8)
    (tmp_path / "shard.npy").write_bytes(shard_bytes(images))
    pack = ImagePack([tmp_path / "shard.npy"], [45], np.arange(45))
    (tmp_path / "classifier").write_bytes(
        train_classifier(images, np.arange(45) % 2, ["x", "y"], seed=0, epochs=1)
    )
    cells = expand(load(path))
    assert {cell.mode for cell in cells} == {"descending", "mine:outside_in"}
    for cell in (cells[0], cells[-1]):
        method = cell.method
        values = resolve(method.groups.by, {})(images)
        assert np.allclose(values, [i[0].mean() - i[1:].mean() for i in images])
        groups = FeatureGroups.fit(values, method.groups)
        ranges = np.linspace(values.min(), values.max(), 4)
        expected = [int(((values >= a) & (values < b)).sum()) for a, b in pairwise(ranges)]
        expected[-1] += 1  # the highest value itself
        assert [group.size for group in groups.groups] == expected
        classifier = load_classifier(method.score, torch.device("cpu"), tmp_path / "classifier")
        real = FeatureStatistics(classifier.features_and_logits(torch.from_numpy(images))[0])
        trainer = StagedTrainer(
            pack,
            groups.assign(values),
            cell.stages,
            Score(classifier, method.score, real),
            gan=method.gan,
            training=method.training,
            seed=cell.seed,
            device=torch.device("cpu"),
            staging=method.stages,
        )
        found = [*trainer.run()]
        assert len(found) == 3 * 4  # a stage falls three times in a row at its last at the earliest
        assert all(evaluation.metrics["mean_distance"] < 0 for evaluation in found)


def test_seeds_are_added_until_a_claim_is_decided(sweep, tmp_path):
    """Stages of two epochs: 2 are always fewer than 6, and 6 seeds the fewest that decide it."""
    criterion = "def two(values, stages):\n    return len(values) - 1, len(values) >= 2\n"
    (tmp_path / "short_for_test.py").write_text(criterion)
    question = """
stages: {criterion: "short_for_test:two"}
verdict: {claims: [conventional < descending in epochs_to_peak]}
grid: {mode: [conventional, descending], seed: {up_to: 8}}
"""
    (code, out, err), runs = sweep(question)
    assert code == 0, err
    assert "at most 16 runs" in err
    assert "6 seeds: supported" in err
    assert "0 claims are undecided" in err
    assert {run["cell"]["seed"] for run in runs} == {*range(6)}
    plan = json.loads((tmp_path / "results" / "tiny" / "sweep.json").read_text())
    assert (len(plan["cells"]), plan["up_to"], plan["looks"]) == (12, 8, [])
    (code, again, err), same = sweep(question)
    assert code == 0, err
    assert "runs: 12 done, 0 half done, 0 missing" in err
    assert (again, same) == (out, runs)


def test_a_pilot_stops_runs_and_records_why(sweep):
    pilot = """
pilot: {grace: 1, keep_one_in: 2}
grid: {mode: [conventional], seed: [0, 1, 2, 3, 4, 5]}
"""
    (code, _, err), runs = sweep(pilot)
    assert code == 0, err
    statuses = [run["status"] for run in runs]
    assert {*statuses} == {"finished", "stopped"}
    stopped = [run for run in runs if run["status"] == "stopped"]
    assert all(1 <= run["epochs_spent"] < 12 and run["best_score"] for run in stopped)
    assert all("pilot" in run["reason"] for run in stopped)
    (_, _, err), same = sweep(pilot)
    assert "runs: 6 done, 0 half done, 0 missing" in err
    assert [run["status"] for run in same] == statuses
