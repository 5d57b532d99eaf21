import re

import pytest
from small_run import SWEEP

from harness.plan.settings import Sweep
from harness.runs import probe as module
from harness.runs.probe import probe


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)


def test_a_probe_measures_real_steps_and_prints_hours():
    text = probe(Sweep.model_validate(SWEEP))
    found = re.search(
        r"8 runs of dcgan at 32 px, width 2, .*: ([\d.]+) ms a step, ([\d.]+) s a score", text
    )
    step, score = map(float, found.groups())
    assert step > 0.1
    hours = (720 * step / 1e3 + 48 * score) / 3600
    printed = float(re.search(r"one run after another: ([\d.]+) hours", text)[1])
    assert printed == pytest.approx(hours, abs=0.006)


def test_a_probe_separates_kinds_of_steps_and_measures_metrics(monkeypatch):
    score = SWEEP["score"] | {"metrics": ["fid"]}
    measured = []
    real = module.Score.evaluate

    def evaluate(self, generate):
        measured.append((len(self.real), self.settings.metrics))
        return real(self, generate)

    monkeypatch.setattr(module.Score, "evaluate", evaluate)
    axes = {"training.d_steps": [1, 2], "pacing.by": ["none", "loss"]}
    text = probe(Sweep.model_validate(SWEEP | {"score": score, "grid": SWEEP["grid"] | axes}))
    assert text.count("8 runs of dcgan") == 4
    assert measured == [(90, ["fid"])] * 8  # two evaluations a kind, of the larger data set
