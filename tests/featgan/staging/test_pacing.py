import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featgan.staging.pacing import image_weights, ranks
from featgan.staging.settings import PacingSettings

LOSS = PacingSettings(by="loss", decay=2.0)


def test_ranks_by_hand():
    assert ranks(np.array([30, 10, 20])).tolist() == [1, -1, 0]
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0, 7.0])).tolist() == [-0.25, -1, -0.25, 1, 0.5]


@pytest.mark.parametrize("values", [[4], [7, 7, 7]])
def test_images_of_equal_values_have_equal_weights(values):
    assert ranks(np.array(values)).tolist() == [0] * len(values)


def test_weights_by_hand():
    places = np.array([-1.0, 0.0, 1.0])
    assert image_weights(places, 0.0, LOSS).tolist() == [2, 1, 0]
    assert image_weights(places, 0.5, LOSS) == pytest.approx(
        [1 + math.exp(-1), 1, 1 - math.exp(-1)]
    )


def test_high_scores_may_come_first():
    high = PacingSettings(by="sampling", first="high")
    assert image_weights(np.array([-1.0, 1.0]), 0.0, high).tolist() == [0, 2]


def test_in_the_end_all_weigh_the_same():
    final = image_weights(np.array([-1.0, 1.0]), 1.0, PacingSettings(by="loss"))
    assert final == pytest.approx([1, 1], abs=0.01)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0, 1))
def test_weights_are_never_negative_and_one_on_average(values, share):
    found = image_weights(ranks(np.array(values)), share, LOSS)
    assert (found >= 0).all()
    assert found.mean() == pytest.approx(1)
