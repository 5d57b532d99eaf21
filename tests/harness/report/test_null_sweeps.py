"""Simulated sweeps: how often verdicts are false, intervals hold the truth, and claims are decided.

Random streams are fixed, so that each test always has the same outcome.
"""

import math

import numpy as np
import pytest

from harness.plan.power import seeds_needed
from harness.report import statistics
from harness.report.statistics import compare, improvement, sequential, step_down

NOISE = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.exponential(size=size),
    "heavy-tailed": lambda rng, size: rng.standard_t(3, size=size),
}
DESCENDING, ASCENDING, CONVENTIONAL = range(3)
KEPT, END, EPOCHS, OUTLINES, COLOUR, DIVERSITY, COUNT = range(7)
PAPER = np.array(
    [
        (CONVENTIONAL, DESCENDING, KEPT),
        (CONVENTIONAL, ASCENDING, KEPT),
        (CONVENTIONAL, DESCENDING, END),
        (CONVENTIONAL, ASCENDING, END),
        (DESCENDING, CONVENTIONAL, EPOCHS),
        (ASCENDING, CONVENTIONAL, EPOCHS),
        (DESCENDING, CONVENTIONAL, OUTLINES),
        (CONVENTIONAL, ASCENDING, OUTLINES),
        (ASCENDING, CONVENTIONAL, COLOUR),
        (ASCENDING, CONVENTIONAL, DIVERSITY),
        (DESCENDING, ASCENDING, COUNT),
    ]
)
"""First and second mode, and measure, of the paper's claims."""
EVALUATIONS = {DESCENDING: 10, ASCENDING: 10, CONVENTIONAL: 30}
"""Evaluations of the last stage, among which the model one keeps is chosen."""


def measured(noise, rng, sweeps, seeds, equal_choice=True):
    """Return measurements [sweeps, 2 data sets, 3 modes, 7 measures, seeds] that no mode changes.

    Quality varies from evaluation to evaluation; scores add noise to it, fresh scores new noise.
    """
    found = noise(rng, (sweeps, 2, 3, 7, seeds))
    found[..., EPOCHS, :] = np.round(3 * found[..., EPOCHS, :])  # in steps: with ties
    found[..., DIVERSITY, :] += found[..., OUTLINES, :]
    for mode, count in EVALUATIONS.items():
        quality = noise(rng, (sweeps, 2, seeds, 10 if equal_choice else count))
        peak = (quality + rng.normal(size=quality.shape)).argmax(axis=-1)
        kept = np.take_along_axis(quality, peak[..., None], axis=-1)[..., 0]
        for measure, model in ((KEPT, kept), (END, quality[..., -1])):
            found[:, :, mode, measure] = model + 0.3 * rng.normal(size=model.shape)
    return found


def differences(found, claims=PAPER):
    """Return [sweeps, 2 * claims, seeds]."""
    first, second, measure = claims.T
    rows = found[:, :, first, measure] - found[:, :, second, measure]
    return rows.reshape(len(rows), -1, rows.shape[-1])


@pytest.mark.guarantee(
    "Verdicts", "Without an effect, 3 to 10 seeds give at most 6 % of reports a verdict"
)
@pytest.mark.parametrize("noise", NOISE)
def test_false_verdicts_of_a_claim_and_of_a_report(noise):
    rng = np.random.default_rng(1)
    of_claim, of_report = [], []
    for seeds in range(3, 11):
        rows = differences(measured(NOISE[noise], rng, 500, seeds))
        corrected = np.array([step_down(report) for report in rows])
        of_report.append((corrected < 0.05).any(axis=1).mean())
        # a claim that is alone in its family, of each kind
        single = [[step_down(row[None])[0] for row in report] for report in rows[:, ::2]]
        of_claim.append((np.array(single) < 0.05).mean(axis=0))
        if seeds < 6:
            assert of_report[-1] == of_claim[-1].max() == 0
    assert np.mean(of_report[3:]) <= 0.06
    assert np.mean(of_claim[3:], axis=0).max() <= 0.06


@pytest.mark.parametrize("noise", NOISE)
def test_false_verdicts_next_to_one_true_effect(noise):
    rng = np.random.default_rng(2)
    found = measured(NOISE[noise], rng, 1500, 8)
    found[:, 0, CONVENTIONAL, END] += 10
    rows = differences(found)
    true = np.zeros(rows.shape[1], bool)
    true[[2, 3]] = True
    clear = np.array([step_down(report) for report in rows]) < 0.05
    assert clear[:, true].mean() > 0.95
    assert clear[:, ~true].any(axis=1).mean() <= 0.06


@pytest.mark.parametrize("effect", [0, 10])
@pytest.mark.parametrize("noise", NOISE)
def test_false_verdicts_of_settings_that_share_a_control(noise, effect):
    rng = np.random.default_rng(10)
    control, *settings = NOISE[noise](rng, (8, 1500, 8))
    settings[0] += effect
    rows = np.stack(settings, axis=1) - control[:, None]
    clear = np.array([step_down(report) for report in rows]) < 0.05
    assert (clear[:, 0].mean() > 0.95) == bool(effect)
    assert clear[:, bool(effect) :].any(axis=1).mean() <= 0.06


def test_choosing_is_an_advantage_and_the_end_has_none():
    rng = np.random.default_rng(3)
    rows = differences(measured(NOISE["normal"], rng, 1000, 10, equal_choice=False))
    false = [np.mean([step_down(row[None])[0] < 0.05 for row in rows[:, i]]) for i in (0, 2)]
    assert false[0] > 0.1  # conventional training chooses among three times as many
    assert false[1] <= 0.06


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_intervals_hold_the_mean_in_95_percent_of_normal_sweeps(seeds):
    rng = np.random.default_rng(4)
    found = [compare(a - b) for a, b in rng.normal(0.5, 1, (2000, 2, seeds))]
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
def test_intervals_hold_the_probability_of_improvement(seeds, effect):
    rng = np.random.default_rng(5)
    truth = (1 + math.erf(effect / 2)) / 2  # of a difference of variance 2
    runs = rng.normal(size=(1000, 2, seeds))
    found = [improvement(a + effect, b) for a, b in runs]
    assert 0.93 <= np.mean([low <= truth <= high for _, low, high in found]) <= 0.98


@pytest.mark.guarantee("Verdicts", "Seeds added up to a limit keep the level of their test")
@pytest.mark.parametrize("noise", NOISE)
def test_false_verdicts_of_whole_sequences(noise, monkeypatch):
    monkeypatch.setattr(statistics, "FLIPS", 1 << 9)
    rng = np.random.default_rng(6)
    rows = differences(measured(NOISE[noise], rng, 1000, 12))
    one = [sequential(report[:1], 12).any() for report in rows]
    report = [sequential(report, 12).any() for report in rows[:600]]
    assert np.mean(one) <= 0.06
    assert np.mean(report) <= 0.06


def test_a_sequence_takes_half_the_seeds_of_a_fixed_number(monkeypatch):
    monkeypatch.setattr(statistics, "FLIPS", 1 << 10)
    rng = np.random.default_rng(7)
    at = np.array([sequential(rng.normal(1, 1, (1, 30)), 30)[0] for _ in range(600)])
    power, seeds = (at > 0).mean(), np.where(at > 0, at, 30).mean()
    assert power > 0.98
    fixed = seeds_needed(1, 1, min(power, 0.995), 0.05)
    assert seeds <= 0.55 * fixed
