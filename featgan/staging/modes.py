"""Modes: which groups join the training at which change of the data.

An order is a function of the number of groups k; it lists the groups that each stage takes on.
Every group must appear once, so that the last stage of a growing run trains on all data.
"""

from __future__ import annotations

from collections.abc import Callable

from featgan.errors import UserError
from featgan.user_code import resolve, user_code_errors

Order = Callable[[int], list[tuple[int, ...]]]


def ascending(k: int) -> list[tuple[int, ...]]:
    """The group of the lowest centroid first (paper, section 4)."""
    return [(number,) for number in range(1, k + 1)]


def descending(k: int) -> list[tuple[int, ...]]:
    """The group of the highest centroid first (paper, section 4)."""
    return ascending(k)[::-1]


def conventional(k: int) -> list[tuple[int, ...]]:
    """All data from the start: the paper's baseline."""
    return [tuple(range(1, k + 1))]


def middle_out(k: int) -> list[tuple[int, ...]]:
    """The middle group first, then its neighbours outwards, the lower of two first."""
    middle = (k + 1) / 2
    return sorted(ascending(k), key=lambda group: (abs(group[0] - middle), group))


RANDOM = "random"
"""Staged as `ascending`, but on groups whose images were drawn: the control for the order."""

MODES: dict[str, Order] = {
    "descending": descending,
    "ascending": ascending,
    "conventional": conventional,
    "middle_out": middle_out,
    RANDOM: ascending,
}


def arrange(mode: str, k: int) -> list[tuple[int, ...]]:
    """The groups that each stage of `mode` takes on; raises UserError where one is lost."""
    with user_code_errors(mode):
        additions = [tuple(groups) for groups in resolve(mode, MODES)(k)]
        numbers = sorted(number for groups in additions for number in groups)
    if numbers != list(range(1, k + 1)):
        raise UserError(
            f"grid.mode: {mode} arranges {k} groups as {additions}; name each of 1..{k} once"
        )
    return additions
