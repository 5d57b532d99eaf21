"""What the commands share: signals, exit codes, the option --scale, the lock on a sweep."""

import argparse
import errno
import io
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import get_args

from featgan.errors import UserError, first_line
from harness.display import Screen
from harness.plan.load import Scale
from harness.storage.lock import SweepLock
from harness.storage.redaction import redacted
from harness.storage.retry import is_outage
from harness.storage.store import Store

DENIED = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""errno values of a full or read-only storage; earlier writes are intact."""


def install_signal_handlers() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt; enable SIGINT, which a shell's `&` ignores.

    Under `nohup` SIGHUP stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def command_line() -> str:
    """Return the command as it can be typed again, with the interpreter as it was typed."""
    return shlex.join([sys.orig_argv[0], *sys.argv])


def exit_code(work: Callable[[], int]) -> int:
    """Do a command's work and return its exit code.

    2 for a user's mistake and 1 for an interruption or a storage that failed, each with one line
    on standard error; 1 with a traceback for any other error. Secrets in addresses are hidden.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal may be ASCII only
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for user-defined functions, as Ray does for its workers
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports its cache of fonts
    code = 1
    try:
        code = work()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        text = f"featgan: stopped at once; to continue: {command_line()}"
    except BrokenPipeError:  # nobody reads the output any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails once more when it ends
        return 1
    # Clients of buckets have errors of their own.
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what a task raised
        if isinstance(cause, UserError):
            code, text = 2, "featgan: " + " ".join(str(cause).split())
        elif _is_of_storage(cause):
            text = f"featgan: {_reason(cause)}: fix this, and run the same command again"
        else:
            text = traceback.format_exc().rstrip()
    print(redacted(text), file=sys.stderr)
    return code


def _is_of_storage(error: Exception) -> bool:
    """Return whether the storage is unreachable, full or read-only."""
    return is_outage(error) or getattr(error, "errno", None) in DENIED


def _reason(error: Exception) -> str:
    """Return what a storage reports, and the file where it names one."""
    what = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return f"{first_line(what)}: {getattr(error, 'filename', None) or 'the storage of `results`'}"


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Add the option `--scale`."""
    parser.add_argument(
        "--scale",
        choices=get_args(Scale),
        default="full",
        help="small: the file's small form, for minutes on two CPU cores",
    )


@contextmanager
def sweep_lock(store: Store, name: str, screen: Screen) -> Iterator[None]:
    """Hold the sweep; UserError where another driver holds it, or no files can be written.

    Once another driver has taken the sweep over, this process ends at once, and its runs with it:
    to stop in order would leave a stop file that stops the other's runs as well.
    """

    def end(reason: str) -> None:
        screen.end()
        screen.say(f"featgan: {reason}; this driver ends now, and its runs end with it")
        os._exit(2)

    with ExitStack() as stack:
        try:
            stack.enter_context(SweepLock(store, name, notice=screen.say, lost=end))
        except Exception as error:
            if isinstance(error, UserError) or _is_of_storage(error):
                raise
            raise UserError(
                f"results: {store.root}: no files can be written there ({_reason(error)}); "
                "give a folder, a shared mount, s3://bucket/folder or gs://bucket/folder"
            ) from error
        yield
