"""The Ray that a sweep runs on: a running cluster, or a quiet instance on this machine.

`connect` gives an Engine, `shutdown` leaves
no process behind. Whether the nodes are fit for a sweep is asked in `preflight.py`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from featgan.errors import UserError
from harness import CURRENT_CLUSTER

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""The cluster file as `ray up` left it on the head: what the autoscaler may still start."""

OBJECT_STORE_BYTES = 1_000_000_000
JOIN_SECONDS = 300.0
"""How long machines that `ray up` has begun are waited for: it returns before they have joined."""
STARTS = 3
"""How often Ray may fail to start in its time."""


@dataclass(frozen=True)
class Engine:
    """The Ray we are connected to, with what its nodes had at that moment."""

    address: str | None
    """`host:port` of a cluster; None for the instance on this machine."""
    nodes: int
    cpus: float
    gpus: float
    """Where there is none yet: those of a node that the autoscaler may start."""


def address() -> str | None:
    """`host:port` of the cluster to use: RAY_ADDRESS, else the one this machine is part of."""
    wanted = os.environ.get("RAY_ADDRESS", "").strip()
    if wanted == "local":
        return None
    if wanted.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={wanted}: a sweep runs on the cluster's head, not through Ray Client; "
            "log in there (ray attach cluster.yaml) and run it again"
        )
    if wanted and wanted != "auto":
        return wanted
    with suppress(FileNotFoundError):
        return CURRENT_CLUSTER.read_text().strip() or None
    return None


def connect(cpus: int | None = None) -> Engine:
    """Join the running cluster, else start a quiet instance with `cpus` CPUs (None: all).

    Raises UserError where a cluster is named but does not answer.
    """
    where = address()
    if where is not None and not _answers(where):
        raise UserError(
            f"the Ray cluster at {where} does not answer: start it again (ray up cluster.yaml), "
            "or set RAY_ADDRESS=local to use this machine alone"
        )
    import ray

    on_term = signal.getsignal(signal.SIGTERM)
    if not ray.is_initialized():
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if where is not None:
            with _silence():
                ray.init(address=where, **quiet)
        else:
            end_orphans()
            _start(cpus, quiet)
    if callable(on_term):  # Ray's own ends the process without a word
        signal.signal(signal.SIGTERM, on_term)
    alive, cpus_there, gpus = _present()
    if where is not None:
        gpus = gpus or _gpus_to_come()
    return Engine(where, alive, cpus_there, gpus)


def gpus_per_run(engine: Engine, asked: float | None, notice: Callable[[str], None]) -> float:
    """GPUs of each run: what was asked for; None: 1 where the machines have GPUs, else 0.

    Waits for machines of unknown kind that have not joined yet. Raises UserError where they do
    not come and no other has a GPU: runs of a whole sweep must not take to the CPU unasked.
    """
    if asked is not None or engine.address is None:
        return asked if asked is not None else float(engine.gpus > 0)
    nodes, gpus, told = engine.nodes, engine.gpus, False
    deadline = time.monotonic() + JOIN_SECONDS
    while not gpus and (missing := _machines_to_come(nodes)):
        if not told:
            notice(f"{missing} machines have not joined yet: has one a GPU? waiting for them")
            told = True
        if time.monotonic() >= deadline:
            raise UserError(
                f"no machine has a GPU, but {missing} have not joined: start them (ray up), or "
                "name resources.gpus_per_run in the sweep file (0: run on CPUs)"
            )
        time.sleep(2)
        nodes, _, gpus = _present()
    return float(gpus > 0)


def _present() -> tuple[int, float, float]:
    """Nodes alive, and their CPUs and GPUs."""
    import ray

    total = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    return alive, total.get("CPU", 0.0), total.get("GPU", 0.0)


def _start(cpus: int | None, quiet: dict[str, Any]) -> None:
    """Start an instance on this machine; Ray gives one 30 s, too little on a busy machine."""
    import ray

    for _ in range(STARTS):
        try:
            with _silence(), _hangups_ignored():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(_Session.begin()),
                    **quiet,
                )
            return
        except Exception as error:  # Ray raises nothing more special
            shutdown()
            if "timed out during startup" not in str(error):
                raise
    raise UserError(
        f"Ray did not start on this machine within 30 s, {STARTS} times over: it is busy with "
        "other work; run the same command again when it is less so"
    )


def node_types() -> dict[str, dict[str, Any]]:
    """The kinds of nodes that the autoscaler may start, by name; none without an autoscaler."""
    file = BOOTSTRAP.expanduser()
    if not file.exists():
        return {}
    return dict(yaml.safe_load(file.read_text()).get("available_node_types", {}))


def _gpus_to_come() -> float:
    """A cluster whose GPU workers come when runs wait has none when the sweep starts."""
    may_come = (kind for kind in node_types().values() if kind.get("max_workers", 0) > 0)
    return float(max(((kind.get("resources") or {}).get("GPU", 0) for kind in may_come), default=0))


def _machines_to_come(alive: int) -> int:
    """Machines of a cluster file that names no resources, less those that are there."""
    unknown = (kind for kind in node_types().values() if not kind.get("resources"))
    return max(0, max((kind.get("max_workers", 0) for kind in unknown), default=0) - alive)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray's core writes past Python off the screen; errors are raised all the same.

    It tells that it was told to be quiet.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _hangups_ignored() -> Iterator[None]:
    """Processes begun within outlive a terminal that closes: the driver ends them in order."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def shutdown() -> None:
    """Leave the cluster, or end the instance on this machine with every process of it."""
    import ray

    ray.shutdown()
    _Session.end()


def end_orphans() -> None:
    """End what drivers of this user that were killed have left on this machine, and only that."""
    for folder in sorted(_sessions().glob("*")):
        with suppress(OSError), open(folder / "driver", "a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held as long as its driver lives
            _clear(folder)


class _Session:
    """The folder of the instance that this process started; its lock says the driver lives."""

    folder: Path | None = None
    lock: IO[str] | None = None

    @classmethod
    def begin(cls) -> Path:
        cls.folder = _sessions() / f"{os.getpid()}-{time.time_ns() // 1_000_000 % 10**8}"
        cls.folder.mkdir(parents=True, mode=0o700)
        cls.lock = open(cls.folder / "driver", "a")  # noqa: SIM115 (held until the process ends)
        fcntl.lockf(cls.lock, fcntl.LOCK_EX)
        return cls.folder

    @classmethod
    def end(cls) -> None:
        if cls.folder is None or cls.lock is None:
            return
        _clear(cls.folder, patience=5.0)
        cls.lock.close()
        cls.folder = cls.lock = None


def _sessions() -> Path:
    """Where instances keep sockets and logs; short, because a socket's path may have 107 bytes."""
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) < 24 else "/tmp") / f"featgan-{os.getuid()}"


def _clear(folder: Path, patience: float = 0.0) -> None:
    """Wait for the processes of a session to end by themselves, end the rest, delete its files."""
    deadline = time.monotonic() + patience
    while (left := list(_processes(folder))) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> Iterator[int]:
    """Ray's processes, other than this one, that hold a log or socket of `folder` open.

    Their command lines alone do not tell: Ray's agents and workers rename themselves. Where
    there is no /proc none are found; Ray's agents then end by themselves in a minute or so.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if not command.startswith(b"ray::") and b"/ray/" not in command:
                continue
            held = (os.readlink(descriptor) for descriptor in (process / "fd").iterdir())
            if process.name != str(os.getpid()) and any(f"{folder}/" in file for file in held):
                yield int(process.name)


def _answers(where: str, seconds: float = 3.0) -> bool:
    host, _, port = where.rpartition(":")
    with suppress(OSError, ValueError):
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
        return True
    return False
