"""The exception for mistakes that the user can fix, and parts of its text."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

INSTALL = "pip install -e '.[{}]' -c constraints.txt"
"""The command that installs an optional part of featgan, in the checkout's folder."""


class UserError(Exception):
    """A user's mistake; its text is one line: what is wrong, where, and what to do.

    Commands print the text and exit with code 2; every other exception keeps its traceback.
    """


def first_line(error: BaseException | str, most: int = 200) -> str:
    """Return the first non-empty line of an error's text, cut to `most` characters."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # PyTorch's and Ray's have bold and colours
    lines = text.strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:most]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest name, in whatever case, else an empty text."""
    known = {each.lower(): each for each in names}
    close = get_close_matches(name[:60].lower(), known, n=1)
    return f"; did you mean {known[close[0]]!r}?" if close else ""
