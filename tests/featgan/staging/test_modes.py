import sys

import pytest

from featgan.errors import UserError
from featgan.staging.modes import MODES, added_groups


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
    assert added_groups(mode, k) == additions


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 2, 7])
def test_every_group_is_added_once(mode, k):
    assert sorted(n for added in added_groups(mode, k) for n in added) == list(range(1, k + 1))


def test_a_user_defined_mode_that_loses_a_group_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "user_modes.py").write_text(
        "def outside_in(k):\n    return [[1], [3], [2]]\n\ndef lossy(k):\n    return [(1,), (1,)]\n"
    )
    assert added_groups("user_modes:outside_in", 3) == [(1,), (3,), (2,)]
    with pytest.raises(UserError, match=r"name each of 1\.\.3 once"):
        added_groups("user_modes:lossy", 3)
    sys.modules.pop("user_modes")
