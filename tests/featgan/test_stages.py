import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featgan.stages import Peak, Progress, Stage, plan


def follow(stages, scores, every=10):
    """Train and measure through all stages, the scores of each stage given by hand."""
    progress, peaks = Progress(stages), []
    for stage_scores in scores:
        for score in stage_scores:
            progress.trained(every)
            if progress.observe(score):
                peaks.append((progress.stage.number, progress.epoch))
        assert progress.stage_over
        progress.next_stage()
    return progress, peaks


def test_ascending_starts_with_the_lowest_centroid_and_adds_upwards():
    assert [s.groups for s in plan("ascending", 3, 5)] == [(1,), (1, 2), (1, 2, 3)]


def test_descending_starts_with_the_highest_centroid_and_adds_downwards():
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
    assert not progress.observe(math.nan)
    assert progress.final_score is None
    assert progress.best_score is None
    assert progress.epochs_to_peak == 0
    progress.trained(10)
    assert progress.observe(1.0)


def test_a_stage_is_over_after_its_epochs_only():
    progress = Progress(plan("ascending", 2, 20))
    progress.trained(10)
    assert not progress.stage_over
    progress.trained(10)
    assert progress.stage_over
    progress.next_stage()
    assert (progress.stage.number, progress.epoch, progress.stage_over) == (2, 0, False)


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=3, max_size=3),
    st.integers(0, 12),
)
def test_a_restored_schedule_ends_the_same(scores, stop):
    stages = plan("descending", 3, 4)

    def run(progress, measured):
        for score in measured:
            progress.trained(1)
            progress.observe(score)
            if progress.stage_over:
                progress.next_stage()
        return progress

    flat = [score for stage in scores for score in stage]
    straight = run(Progress(stages), flat)
    stopped = run(Progress(stages), flat[:stop])
    assert run(Progress.restore(stages, stopped.state()), flat[stop:]) == straight


@pytest.mark.parametrize("mode", ["ascending", "descending"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_stage_adds_one_group_and_the_last_has_all(mode, k):
    stages = plan(mode, k, 7)
    assert [len(stage.groups) for stage in stages] == list(range(1, k + 1))
    assert all(b.groups[: len(a.groups)] == a.groups for a, b in pairwise(stages))
    assert sorted(stages[-1].groups) == list(range(1, k + 1))
