"""A storage that cannot be reached for a while: how that is told, and waited for."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

OUTAGE_SECONDS = 120.0
"""How long an operation is tried again while the storage cannot be reached."""
LONGEST_PAUSE = 10.0
UNREACHABLE = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.ENETDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED),
    *(errno.ECONNRESET, errno.EPIPE),
    errno.EBUSY,  # s3fs: 503, too many requests for now
}
"""What a mount says whose server is away. A full disk or a missing permission will not pass."""

INTERRUPTED = ("connect", "timeout", "incompleteread", "payload", "streaming")
"""In the names of what clients raise where the other side is silent, or falls silent."""

Operation = TypeVar("Operation", bound=Callable[..., Any])


def outlasting(operation: Operation) -> Operation:
    """Try an operation of the store again, after growing pauses, while its storage is away."""

    @wraps(operation)
    def patient(*arguments: Any) -> Any:
        deadline, pause = time.monotonic() + OUTAGE_SECONDS, 0.5
        while True:
            try:
                return operation(*arguments)
            except Exception as error:
                if not is_outage(error) or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return cast(Operation, patient)


def is_outage(error: BaseException) -> bool:
    """Whether the storage could not be reached, as a mount or a client of a bucket tells it."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in UNREACHABLE
    kind = type(error)
    foreign = kind.__module__.startswith(("botocore.", "aiohttp.", "urllib3."))
    return foreign and any(word in kind.__name__.lower() for word in INTERRUPTED)
