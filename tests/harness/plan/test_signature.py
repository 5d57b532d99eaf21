import pytest

from harness.plan.grid import expand
from harness.plan.signature import _effective_settings, signature


def test_the_source_of_a_user_function_is_in_the_signature(read, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own_pace.py"
    path.write_text("def stop(values, stages): return 0, False\n")
    cell = expand(read("stages: {criterion: 'own_pace:stop'}"))[0]
    before = signature(cell, "d", None)
    path.write_text("def stop(values, stages): return 0, len(values) > 3\n")
    assert signature(cell, "d", None) != before


def test_the_signature_covers_what_changes_the_result_only(read):
    def signed(extra="", digest="d", classifier="c"):
        return signature(expand(read(extra))[0], digest, classifier)

    first = signed()
    assert len(first) == 12
    assert signed("resources: {cpus_per_run: 2, max_concurrent: 1}") == first
    assert signed("name: other") == first
    assert signed("sample_every: 3") == first
    assert signed("rescore: false\nverdict: {difference: 0.1, power: 0.9}") == first
    assert signed("grid: {seed: {up_to: 9}}") == first
    assert signed("groups: {k: 4}") != first
    assert signed("gan: {width: 8}") != first
    assert signed(digest="e") != first
    assert signed(classifier="x") != first
    assert signature(expand(read())[0], "d", "c", None, "selected") != first
    assert len({signature(cell, "d", "c") for cell in expand(read())}) == 9  # data: the digest


IGNORED = {
    "patience": ("stages: {patience: 3}", "descending"),
    "window": ("stages: {window: 7}", "descending"),
    "pacing": ("pacing: {first: high, decay: 2.0}", "descending"),
    "tolerance": ("groups: {tolerance: 0.3}", "descending"),
    "selection": ("select: {keep: 0.3, end: low, within: all}", "descending"),
    "growth": ("pacing: {a: 0.2, b: 0.1, order: random}", "conventional"),
    "cut": ("groups: {method: balanced, tolerance: 0.3}", "conventional"),
    "change": ("stages: {change: replace, rewind: false}", "conventional"),
    "published loss": ("gan: {loss: non-saturating}", "descending"),
    "published rate": ("grid: {training.beta1: [0.5], training.d_steps: [1]}", "descending"),
}


@pytest.mark.parametrize("kind", IGNORED)
def test_a_setting_that_a_run_ignores_repeats_no_run(read, kind):
    extra, mode = IGNORED[kind]

    def signed(text):
        cells = expand(read(text))
        return next(signature(cell, "d", "c") for cell in cells if cell.mode == mode)

    assert signed(extra) == signed("")


RANKS = "none", "discriminator_output"
READ = {
    "patience": ("stages: {criterion: patience}", "stages: {criterion: patience, patience: 3}"),
    "window": ("stages: {criterion: plateau}", "stages: {criterion: plateau, window: 7}"),
    "pacing": ("pacing: {by: loss}", "pacing: {by: loss, decay: 2.0}"),
    "tolerance": ("groups: {method: balanced}", "groups: {method: balanced, tolerance: 0.3}"),
    "cut": ("groups: {method: kmeans}", "groups: {method: quantile}"),
    "change": ("stages: {change: add}", "stages: {change: replace}"),
    "rank": ("", "stages: {rank: discriminator_output}\ngrid: {mode: [descending]}"),
    "rewind": ("stages: {rewind: true}", "stages: {rewind: false}"),
    "rate": ("grid: {training.beta1: [0.5]}", "grid: {training.beta1: [0.4]}"),
    "other network": ("gan: {network: sngan}", "gan: {network: sngan, loss: non-saturating}"),
}


@pytest.mark.parametrize("kind", READ)
def test_a_setting_that_a_run_reads_makes_another_run(read, kind):
    first, second = (expand(read(text))[0] for text in READ[kind])
    assert first.mode == "descending"
    assert signature(first, "d", "c") != signature(second, "d", "c")


def test_a_conventional_run_depends_on_values_only_if_paced(read):
    def signatures(text, mode):
        cell = next(cell for cell in expand(read(text)) if cell.mode == mode)
        return {signature(cell, "d", "c", values) for values in (None, "v", "w")}

    assert len(signatures("", "conventional")) == 1
    assert len(signatures("pacing: {by: loss}", "conventional")) == 3
    axes = "grid: {{mode: [conventional], training.epoch_steps: [4]}}"
    grown = ("pacing: {{grow: linear, order: {}}}\n" + axes).format
    assert len(signatures(grown("ascending"), "conventional")) == 3
    assert len(signatures(grown("random"), "conventional")) == 1
    assert len(signatures("", "descending")) == 3


def test_a_run_with_fixed_groups_is_signed_without_their_rank(read):
    fixed, ranked = (f"stages: {{rank: {by}}}\ngrid: {{mode: [descending]}}" for by in RANKS)
    assert "rank" not in _effective_settings(expand(read(fixed))[0])["stages"]
    assert _effective_settings(expand(read(ranked))[0])["stages"]["rank"] == RANKS[1]
