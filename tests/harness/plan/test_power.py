import subprocess
import sys

import numpy as np
import pytest

from harness.plan.power import Deviation, detectable, seeds_needed, seeds_text
from harness.report.statistics import step_down


@pytest.mark.parametrize(
    ("effect", "power", "level", "pairs"),
    [
        # Cohen (1988), table 2.4.1, for one sample; G*Power 3.1 gives the same
        (0.2, 0.8, 0.05, 199),
        (0.5, 0.8, 0.05, 34),
        (0.8, 0.8, 0.05, 15),
        (1.0, 0.8, 0.05, 10),
        (0.5, 0.9, 0.05, 44),
        (0.5, 0.8, 0.01, 51),
    ],
)
def test_seeds_needed_are_those_of_published_tables(effect, power, level, pairs):
    assert seeds_needed(effect * 0.3, 0.3, power, level) == pairs


def test_few_seeds_have_no_p_under_the_level():
    assert seeds_needed(100, 1, 0.8, 0.05) == 7
    assert seeds_needed(1e-5, 1, 0.8, 0.05) is None


def test_the_detectable_difference_is_detected_with_this_power():
    true = detectable(12, 0.5, 0.8, 0.01)
    noise = np.random.default_rng(0).standard_normal((40_000, 12)) * 0.5 + true
    t = noise.mean(axis=1) / (noise.std(axis=1, ddof=1) / np.sqrt(12))
    assert (np.abs(t) > 3.1058).mean() == pytest.approx(0.8, abs=0.01)  # t of 11 degrees, 0.995


def test_sign_flips_have_about_this_power():
    true = detectable(10, 1.0, 0.8, 0.05)
    noise = np.random.default_rng(0).standard_normal((600, 1, 10)) + true
    assert np.mean([step_down(each)[0] < 0.05 for each in noise]) == pytest.approx(0.8, abs=0.04)


SEEDS = "grid: {{mode: [conventional, descending], seed: [0, 1, 2, 3, 4, 5{}]}}\n"
VERDICT = """
verdict: {claims: [conventional > descending in score], difference: 0.1}
"""


def test_the_text_names_seeds_level_and_deviation(read):
    sweep = read(VERDICT + SEEDS.format(""))
    found = {"a": Deviation(0.05, 3), "end_score, b": Deviation(0.1, 4)}
    text = seeds_text(sweep, 4, found)
    # two claims on two data sets; an effect of 1 at level 0.0125
    assert text.startswith("seeds: a difference of 0.1 in fresh scores takes 15, at power 0.8")
    assert "level 0.05 / 4, Bonferroni's bound for 4 tests\n" in text
    assert "\n  the grid's 6 find one only if the sign is the same in all 6\n" in text
    assert "the grid's 7 find one of 0.1" in seeds_text(
        read(VERDICT + SEEDS.format(", 6")), 4, found
    )
    assert text.endswith("is 0.1, the largest of 2: end_score, b, 4 seeds")


def test_without_a_deviation_the_text_says_what_is_missing(read):
    text = seeds_text(read(VERDICT), 4, {})
    assert "run and re-score two seeds of what a claim compares" in text
    assert "verdict.sd_from" in text
    assert "no two runs of the grid differ" in seeds_text(read(VERDICT), 0, {"a": Deviation(1, 3)})
    assert "the grid's 3 find none: fewer than 6" in seeds_text(
        read(VERDICT), 4, {"a": Deviation(1, 3)}
    )


def test_a_dry_run_without_a_difference_loads_no_scipy(tmp_path, read):
    nowhere = "{source: folder, path: /nowhere/at/all, labels: folder}"
    read(
        "",
        "{source: builtin, set: apples, count: 60}\n  b: {source: builtin, set: digits}",
        nowhere,
    )
    code = (
        "import sys; from harness.sweep import main; main(sys.argv[1:]);"
        "print([m for m in ('scipy', 'pandas', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "small.yaml"), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n"), done.stdout[-200:]
