"""Modes: the order in which groups join the training.

A mode is a function of the number of groups k that returns the groups each stage adds. Every group
must appear once, so that the last stage of a growing run trains on all data.
"""

from collections.abc import Callable

from featgan.errors import UserError
from featgan.user_code import resolve, user_code_errors

Mode = Callable[[int], list[tuple[int, ...]]]


def ascending(k: int) -> list[tuple[int, ...]]:
    """Add the group of the lowest centroid first (paper, section 4)."""
    return [(number,) for number in range(1, k + 1)]


def descending(k: int) -> list[tuple[int, ...]]:
    """Add the group of the highest centroid first (paper, section 4)."""
    return ascending(k)[::-1]


def conventional(k: int) -> list[tuple[int, ...]]:
    """Train on all data from the start: the paper's baseline."""
    return [tuple(range(1, k + 1))]


def middle_out(k: int) -> list[tuple[int, ...]]:
    """Add the middle group first, then its neighbours outwards, the lower of two first."""
    middle = (k + 1) / 2
    return sorted(ascending(k), key=lambda group: (abs(group[0] - middle), group))


RANDOM = "random"
"""Stages as in `ascending`, but groups of randomly drawn images: a control for the order."""

MODES: dict[str, Mode] = {
    mode.__name__: mode for mode in (descending, ascending, conventional, middle_out)
}
MODES[RANDOM] = ascending


def added_groups(mode: str, k: int) -> list[tuple[int, ...]]:
    """Return the groups that each stage of `mode` adds.

    Raises UserError if a user-defined mode fails, or does not name each group once.
    """
    with user_code_errors(mode):
        additions = [tuple(groups) for groups in resolve(mode, MODES)(k)]
        numbers = sorted(number for groups in additions for number in groups)
    if numbers != list(range(1, k + 1)):
        raise UserError(
            f"grid.mode: {mode} returned {additions} for {k} groups; name each of 1..{k} once"
        )
    return additions
