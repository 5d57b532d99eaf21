"""A quiet Ray on this machine alone, which ends with the process that started it.

Ray's own processes end when their parent dies, at the latest a minute after it was killed. So a
killed driver leaves only files, which the next start on this machine removes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import ray

from featgan.errors import UserError

OBJECT_STORE_BYTES = 1_000_000_000

_session = ExitStack()
"""Removes the files of the instance that this process started."""


def start(cpus: int | None) -> None:
    """Start an instance with `cpus` CPUs (None: all of this machine)."""
    sessions = _sessions()
    sessions.mkdir(mode=0o700, exist_ok=True)
    _remove_files_of_dead_drivers(sessions)
    folder = Path(tempfile.mkdtemp(dir=sessions))
    _session.callback(shutil.rmtree, folder, ignore_errors=True)
    lock = _session.enter_context((folder / "driver").open("w"))
    fcntl.lockf(lock, fcntl.LOCK_EX)
    # Ray's processes must outlive a terminal that closes, until the runs have saved themselves.
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with silence():
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
    except Exception as error:  # Ray raises nothing more special
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine within 30 s: it is busy with other work; run the "
            "same command again when it is less so"
        ) from error
    finally:
        signal.signal(signal.SIGHUP, hangup)


def shutdown() -> None:
    """End the instance with its processes and files, or leave the cluster."""
    ray.shutdown()
    _session.close()


@contextmanager
def silence() -> Iterator[None]:
    """Keep what Ray's C++ core writes to standard error, its log level say, off the screen."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _sessions() -> Path:
    """Return the folder of this user's instances; short, as a socket's path may have 107 bytes."""
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) < 24 else "/tmp") / f"featgan-{os.getuid()}"


def _remove_files_of_dead_drivers(sessions: Path) -> None:
    for folder in sessions.iterdir():
        with suppress(OSError), open(folder / "driver", "a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as its driver lives
            shutil.rmtree(folder, ignore_errors=True)
