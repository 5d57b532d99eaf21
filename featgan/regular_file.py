"""Opening a file that a user names: a pipe would be waited for, a device read without end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: str | bytes | Path) -> BufferedReader:
    """The file, to be read, `~` included; an OSError says where it is a pipe or a device."""
    file = open(os.path.expanduser(path), "rb", opener=_without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", path)
    return file


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe at once, also where nobody writes to it; a file is read as ever."""
    return os.open(path, flags | os.O_NONBLOCK)
