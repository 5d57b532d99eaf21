"""The exception for mistakes that the user can fix, and the first line of any other."""

import re

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
