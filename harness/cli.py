"""What the commands share: how they end, the option --scale, being alone with a sweep."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, get_args

from featgan import output
from featgan.errors import UserError
from harness.display import Screen
from harness.plan.load import Scale
from harness.storage.lock import SweepLock
from harness.storage.redaction import one_line, redacted
from harness.storage.retry import is_outage
from harness.storage.store import Store

DENIED = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""What a storage says that is full or closed; what was written until then is whole."""
STORAGE = "the storage of `results`"


def heed_signals() -> None:
    """Whatever asks the command to end does as Ctrl-C, which a shell's `&` has turned off."""
    for number in ending_signals():
        signal.signal(number, signal.default_int_handler)


def ending_signals() -> list[signal.Signals]:
    """What asks a command to end: Ctrl-C, SIGTERM and, but for `nohup`, a closed terminal."""
    under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if under_nohup else [signal.SIGHUP])]


def spelled() -> str:
    """The command, to be typed again."""
    return redacted(shlex.join(["python", *sys.argv]))


def exit_code(work: Callable[[], int]) -> int:
    """Do a command's work; its exit code, or 1 where it was stopped, 2 for a user's mistake.

    Whatever went wrong is told in one line; an unexpected error keeps its traceback, without
    the secrets of addresses. Where nobody reads the output any more, it ends without a word.
    """
    output.spell_all()
    try:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # the user's own functions, as Ray does for its workers
        code = work()
        sys.stdout.flush()  # or a closed pipe is told by Python, when it ends
        return code
    except UserError as error:
        # One that a Ray task raised comes wrapped in its traceback.
        text = one_line(str(getattr(error, "cause", error)), most=10_000)
        print(f"featgan: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"featgan: stopped at once; to continue: {spelled()}", file=sys.stderr)
        return 1
    # a bucket's client has errors of its own
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output.is_closed():
            return 1
        cause = getattr(error, "cause", None) or error  # as above
        if _is_storages(cause):
            text, advice = _storage(cause), "mend this, and the same command continues"
            print(redacted(f"featgan: {text}: {advice}"), file=sys.stderr)
        else:
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return 1


def _is_storages(error: Exception) -> bool:
    """Whether the storage is away, full or closed: no mistake, and no defect of this project."""
    return is_outage(error) or getattr(error, "errno", None) in DENIED


def _storage(error: Exception) -> str:
    """What a storage says, and of which file where it tells."""
    what = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return f"{one_line(what)}: {getattr(error, 'filename', None) or STORAGE}"


def add_scale(parser: argparse.ArgumentParser) -> None:
    """The option `--scale`."""
    parser.add_argument(
        "--scale",
        choices=get_args(Scale),
        default="full",
        help="small: the file's small form, for minutes on two CPU cores",
    )


@contextmanager
def alone(store: Store, name: str, screen: Screen) -> Iterator[None]:
    """Hold the sweep; UserError as soon as another driver has taken it over.

    The stop file that Ctrl-C leaves would stop the other's runs as well, so what is under way
    here is ended at once.
    """
    told: list[str] = []

    def lost(reason: str) -> None:
        told.append(reason)
        os.kill(os.getpid(), signal.SIGUSR2)  # Tune has the first for itself

    def end(*_: Any) -> None:
        raise KeyboardInterrupt  # passes what survives other errors

    before = signal.signal(signal.SIGUSR2, end)
    try:
        with ExitStack() as held:
            with _a_place(store):
                held.enter_context(SweepLock(store, name, notice=screen.say, lost=lost))
            yield
    except KeyboardInterrupt:
        if not told:
            raise
        raise UserError(f"{told[0]}; this driver and its runs have ended") from None
    finally:
        signal.signal(signal.SIGUSR2, before)


@contextmanager
def _a_place(store: Store) -> Iterator[None]:
    """Within the first reads and writes of all: UserError where no files can be kept there."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_storages(error):
            raise
        raise UserError(
            f"results: {redacted(store.root)}: no files can be kept there ({_storage(error)}); "
            "give a folder, a shared mount, s3://bucket/folder or gs://bucket/folder"
        ) from error
