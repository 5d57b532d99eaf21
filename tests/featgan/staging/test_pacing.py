import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featgan.staging.pacing import SHARES, growth_order, image_count, image_weights, ranks
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


@pytest.mark.parametrize("grow", SHARES)
@pytest.mark.parametrize("images", [1000, 999])
def test_growth_starts_with_b_and_is_complete_after_a(grow, images):
    pacing = PacingSettings(grow=grow, a=0.4, b=0.1)
    sizes = [image_count(images, share, pacing) for share in (0, 0.4, 1)]
    assert sizes == [images // 10, images, images]
    grown = [image_count(images, share, pacing) for share in np.linspace(0, 0.5, 50)]
    assert grown == sorted(grown)


HALFWAY = {  # Wu et al. 2021: N = 1000, b = 0.2, halfway to a T
    "linear": 200 + 800 / 2,
    "quadratic": 200 + 800 / 4,
    "root": 200 + 800 / math.sqrt(2),
    "exponential": 200 + 800 * (math.exp(5) - 1) / (math.exp(10) - 1),
    "logarithmic": 200 + 800 * (1 + 0.1 * math.log(0.5 + math.exp(-10))),
    "step": 200,
}


@pytest.mark.parametrize("grow", HALFWAY)
def test_growth_halfway_by_the_papers_formulas(grow):
    pacing = PacingSettings(grow=grow, a=1.6, b=0.2)
    assert image_count(1000, 0.8, pacing) == int(HALFWAY[grow])
    assert image_count(1000, 1.0, pacing) < 1000  # a run that ends before the growth


def test_growth_begins_with_one_image_at_least():
    assert image_count(7, 0.0, PacingSettings(grow="linear", b=0.01)) == 1


def test_the_three_orders_of_growth():
    values = np.array([5, 1, 9, 1], np.int16)

    def order(name, seed=0):
        return growth_order(values, PacingSettings(grow="linear", order=name), seed).tolist()

    assert order("ascending") == [1, 3, 0, 2]
    assert order("descending") == [2, 0, 1, 3]
    assert sorted(order("random")) == [0, 1, 2, 3]
    assert len({tuple(order("random", seed)) for seed in range(9)}) > 3
    assert order("random") == order("random")


def test_growth_and_weights_exclude_each_other():
    with pytest.raises(ValueError, match="grow and by exclude each other"):
        PacingSettings(grow="step", by="loss")
