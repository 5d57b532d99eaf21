"""The one exception for mistakes that their maker can mend."""

from __future__ import annotations


class UserError(Exception):
    """A user's mistake; its text is one line: what is wrong, where, and what to do.

    Commands print the text and exit with code 2; everything else keeps its traceback.
    """
