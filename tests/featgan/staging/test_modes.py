import sys

import numpy as np
import pytest

from featgan.errors import UserError
from featgan.staging.modes import ORDERS, arrange, deal


@pytest.mark.parametrize(
    ("mode", "k", "additions"),
    [
        ("ascending", 3, [(1,), (2,), (3,)]),
        ("descending", 3, [(3,), (2,), (1,)]),
        ("conventional", 3, [(1, 2, 3)]),
        ("middle_out", 3, [(2,), (1,), (3,)]),
        ("middle_out", 4, [(2,), (3,), (1,), (4,)]),
        ("middle_out", 5, [(3,), (2,), (4,), (1,), (5,)]),
        ("random", 3, [(1,), (2,), (3,)]),
    ],
)
def test_orders_by_hand(mode, k, additions):
    assert arrange(mode, k) == additions


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("k", [1, 2, 7])
def test_every_group_is_taken_on_once(mode, k):
    assert sorted(n for added in arrange(mode, k) for n in added) == list(range(1, k + 1))


def test_random_groups_have_the_same_sizes_and_say_nothing():
    groups = np.repeat([1, 2, 3], [500, 300, 200])
    dealt = deal("random", groups, seed=0)
    assert np.array_equal(np.bincount(dealt), np.bincount(groups))
    share = (dealt[:500] == 1).mean()
    assert 0.42 < share < 0.58  # half of all are in group 1: the order of images plays no part
    assert np.array_equal(dealt, deal("random", groups, seed=0))
    assert not np.array_equal(dealt, deal("random", groups, seed=1))


def test_other_modes_keep_their_groups():
    groups = np.array([1, 3, 2])
    assert deal("descending", groups, seed=0) is groups


def test_an_own_order_that_loses_a_group_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_orders.py").write_text(
        "def outside_in(k):\n    return [[1], [3], [2]]\n\ndef lossy(k):\n    return [(1,), (1,)]\n"
    )
    assert arrange("own_orders:outside_in", 3) == [(1,), (3,), (2,)]
    with pytest.raises(UserError, match=r"name each of 1\.\.3 once"):
        arrange("own_orders:lossy", 3)
    sys.modules.pop("own_orders")
