import pytest
from hypothesis import given
from hypothesis import strategies as st

from featgan.staging.criteria import CRITERIA, fixed, patience, peak, plateau, smoothed_peak
from featgan.staging.settings import CRITERION_NAMES, StageSettings

STAGES = StageSettings(window=3, patience=2)
VALUES = st.lists(st.floats(-10, 10), min_size=1, max_size=40)


def test_every_criterion_has_a_function():
    assert tuple(CRITERIA) == CRITERION_NAMES


def test_the_peak_is_the_first_of_the_highest():
    assert peak([1, 3, 2, 3], STAGES) == (1, False)


@pytest.mark.parametrize(
    ("values", "position"),
    [
        ([1.0], 0),
        ([1.0, 5.0], 0),  # no whole window yet: all there is, and the middle of it
        ([1.0, 2.0, 3.0], 1),
        ([9.0, 1.0, 1.0, 5.0, 5.0, 4.0], 4),  # means 3.67, 2.33, 3.67, 4.67
        ([0.0, 9.0, 0.0, 4.0, 4.0, 4.0, 0.0], 2),  # 3, 4.33, 2.67, 4, 2.67: not the fluke at 1
    ],
)
def test_the_smoothed_peak_is_the_middle_of_the_best_window(values, position):
    assert smoothed_peak(values, STAGES) == (position, False)


def test_a_window_of_one_is_the_peak():
    values = [2.0, 7.0, 7.0, 3.0]
    assert smoothed_peak(values, StageSettings(window=1)) == peak(values, STAGES)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1, 2], (1, False)),
        ([1, 2, 1], (1, False)),
        ([1, 2, 1, 2], (1, True)),  # an equal one is no new best
        ([1, 2, 1, 3], (3, False)),
    ],
)
def test_patience_ends_a_stage_without_a_new_best(values, verdict):
    assert patience(values, STAGES) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([5, 4, 3, 2, 1], (0, False)),  # not yet two windows
        ([1, 2, 3, 2, 3, 4], (5, False)),
        ([1, 2, 3, 3, 2, 1], (2, True)),
        ([0, 0, 1, 2, 3, 9, 0, 0], (5, False)),  # a fluke inside the window carries it
    ],
)
def test_a_plateau_ends_a_stage_once_windows_no_longer_rise(values, verdict):
    assert plateau(values, STAGES) == verdict


def test_fixed_takes_the_last():
    assert fixed([3, 9, 1], STAGES) == (2, False)


@given(VALUES, st.sampled_from([*CRITERIA]), st.sampled_from([1, 3, 5, 7]))
def test_no_criterion_looks_back_further_than_it_may(values, name, window):
    """The peak is the one it was, the newest, or within half a window: so few models are kept."""
    from featgan.staging.progress import Progress
    from featgan.staging.stages import plan

    settings = StageSettings(criterion=name, window=window, patience=3)
    progress = Progress(plan("conventional", 1, 100), settings)
    models = set()
    for number, value in enumerate(values):
        progress.trained(1)
        progress.observe(value)
        models = ({*models, number}) & progress.kept
        assert progress.chosen in models
        assert len(models) <= window // 2 + 1
