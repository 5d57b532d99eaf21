"""Recognise a storage that is unreachable for a while, and wait for it."""

import errno
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

OUTAGE_SECONDS = 120.0
"""How long an operation is tried again while the storage is unreachable."""
LONGEST_PAUSE = 10.0
UNREACHABLE = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.ENETDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED),
    *(errno.ECONNRESET, errno.EPIPE),
    errno.EBUSY,  # s3fs: 503, too many requests for now
}
"""errno values of an unreachable file server; a full disk or a missing permission stays."""

INTERRUPTED = ("connect", "timeout", "incompleteread", "payload", "streaming")
"""Words in the names of the connection and timeout errors that clients raise."""

Operation = TypeVar("Operation", bound=Callable[..., Any])


def retry_while_unreachable(operation: Operation) -> Operation:
    """Try an operation again, after growing pauses, while its storage is unreachable."""

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
    """Return whether an error of a mount or of a bucket's client means an unreachable storage."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in UNREACHABLE
    kind = type(error)
    foreign = kind.__module__.startswith(("botocore.", "aiohttp.", "urllib3."))
    return foreign and any(word in kind.__name__.lower() for word in INTERRUPTED)
