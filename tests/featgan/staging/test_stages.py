import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featgan.errors import UserError
from featgan.staging.progress import Peak, Progress
from featgan.staging.settings import StageSettings
from featgan.staging.stages import Stage, plan


def follow(stages, scores, every=10):
    """Train and measure through all stages, the scores of each stage given by hand."""
    progress, peaks = Progress(stages), []
    for stage_scores in scores:
        for score in stage_scores:
            progress.trained(every)
            progress.observe(score)
            if progress.chosen == len(progress.measured) - 1:
                peaks.append((progress.stage.number, progress.epoch))
        assert progress.stage_over
        progress.next_stage()
    return progress, peaks


def test_ascending_starts_with_the_lowest_centroid():
    assert [s.groups for s in plan("ascending", 3, 5)] == [(1,), (1, 2), (1, 2, 3)]


def test_descending_starts_with_the_highest_centroid():
    assert [s.groups for s in plan("descending", 3, 5)] == [(3,), (3, 2), (3, 2, 1)]


def test_conventional_has_all_data_and_the_epochs_of_all_stages():
    assert plan("conventional", 3, 3000) == (Stage(1, (1, 2, 3), 9000),)


def test_a_schedule_by_hand():
    """Three stages of 30 epochs; peaks at 20, 10 (the first of a tie) and 30."""
    progress, peaks = follow(
        plan("ascending", 3, 30), [[1.0, 3.0, 2.0], [2.5, 2.5, 2.0], [1.0, 2.0, 2.75]]
    )
    assert progress.finished
    assert peaks == [(1, 10), (1, 20), (2, 10), (3, 10), (3, 20), (3, 30)]
    assert progress.peaks == [Peak(20, 3.0), Peak(10, 2.5), Peak(30, 2.75)]
    assert progress.epochs_to_peak == 20 + 10 + 30
    assert progress.epochs_spent == 90
    assert progress.final_score == 2.75
    assert progress.best_score == 3.0


def test_of_equal_scores_the_first_is_the_peak():
    progress, _ = follow(plan("conventional", 2, 20), [[1.5, 2.0, 2.0, 2.0]])
    assert progress.peaks == [Peak(20, 2.0)]
    assert progress.epochs_to_peak == 20


def test_the_papers_count():
    """Table 4, descending: 3,310 epochs to the peaks of 9,000 spent."""
    stages = plan("descending", 3, 3000)
    scores = [[float(10 * n == peak) for n in range(1, 301)] for peak in (1200, 110, 2000)]
    progress, _ = follow(stages, scores)
    assert (progress.epochs_to_peak, progress.epochs_spent) == (3310, 9000)


def test_a_score_that_is_no_number_is_never_a_peak():
    progress = Progress(plan("conventional", 1, 30))
    progress.trained(10)
    progress.observe(math.nan)
    assert (progress.final_score, progress.best_score, progress.chosen) == (None, None, None)
    assert progress.epochs_to_peak == 0
    progress.trained(10)
    progress.observe(1.0)
    assert progress.peaks == [Peak(20, 1.0)]


def test_a_stage_is_over_after_its_epochs_only():
    progress = Progress(plan("ascending", 2, 20))
    progress.trained(10)
    assert not progress.stage_over
    progress.trained(10)
    assert progress.stage_over
    progress.next_stage()
    assert (progress.stage.number, progress.epoch, progress.stage_over) == (2, 0, False)


@given(
    st.lists(st.floats(-5, 5), min_size=20, max_size=20),
    st.integers(0, 12),
    st.sampled_from(["peak", "smoothed_peak", "patience", "plateau", "fixed"]),
)
def test_a_restored_schedule_ends_the_same(scores, stop, criterion):
    stages = plan("descending", 3, 4)
    settings = StageSettings(criterion=criterion, window=3, patience=2)

    def run(progress, measured):
        for score in measured:
            if not progress.finished:
                progress.trained(1)
                progress.observe(score)
                if progress.stage_over:
                    progress.next_stage()
        return progress

    straight = run(Progress(stages, settings), scores)
    stopped = run(Progress(stages, settings), scores[:stop])
    restored = Progress(stages, settings)
    restored.restore(stopped.state())
    assert run(restored, scores[stop:]) == straight


@pytest.mark.parametrize("mode", ["ascending", "descending"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_stage_adds_one_group_and_the_last_has_all(mode, k):
    stages = plan(mode, k, 7)
    assert [len(stage.groups) for stage in stages] == list(range(1, k + 1))
    assert all(b.groups[: len(a.groups)] == a.groups for a, b in pairwise(stages))
    assert sorted(stages[-1].groups) == list(range(1, k + 1))


def test_replaced_groups_train_alone():
    assert plan("descending", 3, 5, "replace") == (
        Stage(1, (3,), 5),
        Stage(2, (2,), 5),
        Stage(3, (1,), 5),
    )
    assert plan("conventional", 3, 5, "replace") == plan("conventional", 3, 5)


def test_a_stage_that_takes_on_two_groups_has_the_epochs_of_two(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "two_steps.py").write_text("def order(k):\n    return [[1, 3], [2]]\n")
    stages = plan("two_steps:order", 3, 10)
    assert stages == (Stage(1, (1, 3), 20), Stage(2, (1, 3, 2), 10))


def test_a_stage_ended_by_its_criterion_spends_fewer_epochs():
    """Peaks at 20 and 10; each stage ends two evaluations later."""
    settings = StageSettings(criterion="patience", patience=2)
    progress = Progress(plan("ascending", 2, 100), settings)
    for score in [1.0, 3.0, 2.0, 2.5, 5.0, 4.0, 4.0]:
        progress.trained(10)
        progress.observe(score)
        if progress.stage_over:
            progress.next_stage()
    assert progress.finished
    assert progress.epochs == [40, 30]
    assert (progress.epochs_spent, progress.epochs_to_peak) == (70, 30)
    assert progress.peaks == [Peak(20, 3.0), Peak(10, 5.0)]


def test_without_rewind_epochs_after_a_peak_count():
    progress = Progress(plan("ascending", 2, 30), StageSettings(rewind=False))
    for score in [3.0, 2.0, 1.0, 1.0, 4.0, 1.0]:
        progress.trained(10)
        progress.observe(score)
        if progress.stage_over:
            progress.next_stage()
    assert progress.peaks == [Peak(10, 3.0), Peak(20, 4.0)]
    assert progress.epochs_to_peak == 30 + 20


def test_the_watched_value_chooses_and_the_score_is_reported():
    """With FID as the criterion the peak is the smallest FID; its score is another's business."""
    progress = Progress(plan("conventional", 1, 30), StageSettings(watch="fid"))
    for score, fid in [(3.0, 90.0), (2.0, 50.0), (2.5, 60.0)]:
        progress.trained(10)
        progress.observe(score, -fid)
    assert progress.peaks == [Peak(20, 2.0)]
    assert (progress.final_score, progress.best_score) == (2.0, 3.0)


def test_a_smoothed_peak_keeps_the_models_it_may_go_back_to():
    settings = StageSettings(criterion="smoothed_peak", window=3)
    progress = Progress(plan("conventional", 1, 60), settings)
    kept = []
    for score in [1.0, 2.0, 3.0, 4.0, 1.0, 1.0]:
        progress.trained(10)
        progress.observe(score)
        kept.append(progress.kept)
    assert kept == [{0}, {0, 1}, {1, 2}, {2, 3}, {2, 4}, {2, 5}]
    assert progress.peaks == [Peak(30, 3.0)]


def test_a_criterion_that_looks_back_too_far_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "moody.py").write_text(
        "def criterion(values, stages):\n    return (1 if len(values) > 8 else 0), False\n"
    )
    progress = Progress(plan("conventional", 1, 90), StageSettings(criterion="moody:criterion"))
    for _ in range(8):
        progress.trained(10)
        progress.observe(1.0)
    progress.trained(10)
    with pytest.raises(UserError, match=r"evaluation 2 of 9.*raise stages\.window"):
        progress.observe(1.0)


@pytest.mark.parametrize("answer", ["1", "None", "(2, False)", "(-1, False)", "(0, True, 0)"])
def test_a_user_defined_criterions_answer_is_checked(tmp_path, monkeypatch, answer):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vague.py").write_text(f"def criterion(values, stages):\n    return {answer}\n")
    monkeypatch.delitem(sys.modules, "vague", raising=False)
    progress = Progress(plan("conventional", 1, 90), StageSettings(criterion="vague:criterion"))
    with pytest.raises(UserError) as caught:
        progress.observe(1.0)
    assert f"stages.criterion: vague:criterion returned {answer} for " in str(caught.value)


def test_an_error_in_a_user_defined_criterion_names_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hasty.py").write_text(
        "def criterion(values, stages):\n    return values[7], False\n"
    )
    progress = Progress(plan("conventional", 1, 90), StageSettings(criterion="hasty:criterion"))
    with pytest.raises(UserError, match=r"hasty:criterion: IndexError: .*\(hasty\.py, line 2\)"):
        progress.observe(1.0)


def test_nan_at_a_stages_start_does_not_end_the_run():
    progress = Progress(plan("conventional", 1, 40), StageSettings(watch="own"))
    for value in [math.nan, math.nan, 3.0, 2.0]:
        progress.trained(10)
        progress.observe(1.0, value)
    assert progress.peaks == [Peak(30, 1.0)]


def test_a_peak_outlives_values_that_are_not_finite():
    settings = StageSettings(criterion="smoothed_peak", window=3, watch="own")
    progress = Progress(plan("conventional", 1, 70), settings)
    for value in [5.0, math.nan, 6.0, math.inf, 7.0]:
        progress.trained(10)
        progress.observe(value, value)
    assert progress.peaks == [Peak(10, 5.0)]  # no window is whole
    for value in [6.5, 6.0]:
        progress.trained(10)
        progress.observe(value, value)
    assert (progress.peaks, progress.best_score) == ([Peak(60, 6.5)], 7.0)


def test_a_criterions_numpy_answers_stay_out_of_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "numpy_minded.py").write_text(
        "import numpy as np\ndef c(values, stages):\n"
        "    return np.argmax(values), np.bool_(len(values) > 1)\n"
    )
    progress = Progress(plan("conventional", 1, 40), StageSettings(criterion="numpy_minded:c"))
    for value in [2.0, 1.0]:
        progress.trained(10)
        progress.observe(value)
    assert (type(progress.state()["chosen"]), type(progress.state()["over"])) == (int, bool)
    assert progress.stage_over


def test_a_window_has_a_middle():
    with pytest.raises(ValueError, match="odd"):
        StageSettings(window=4)
