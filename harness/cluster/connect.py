"""The Ray that a sweep runs on: a running cluster, or a quiet instance on this machine.

The instance ends with the process that started it: Ray's own processes end when their parent
dies, at the latest a minute after it was killed.
"""

import logging
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
import yaml
from ray.exceptions import OutOfDiskError

from featgan.errors import UserError, first_line
from harness import CURRENT_CLUSTER
from harness.display import Screen

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""The cluster file as `ray up` left it on the head: the nodes that the autoscaler may start."""
OBJECT_STORE_BYTES = 1_000_000_000
"""Shared memory of the instance on this machine."""
FREE_SHARE = 0.05
"""Share of a disk that Ray leaves free: it writes there what its shared memory cannot hold."""
WAIT_SECONDS = 30.0
"""Time between two lines that say what a sweep waits for."""
RESOURCES = ("CPU", "GPU")
LOCAL = "RAY_ADDRESS=local keeps to this machine"

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, the number done and that of all; without the latter, with a line."""

_session = ExitStack()
"""Removes the files of the instance that this process started."""


@dataclass(frozen=True)
class Engine:
    """The Ray we are connected to, with what its nodes had at that moment."""

    address: str | None
    """`host:port` of a cluster; None for the instance on this machine."""
    nodes: int
    gpus: float


@contextmanager
def session(screen: Screen) -> Iterator[Engine]:
    """Connect within a `with`; UserError where Ray runs out of disk."""
    try:
        yield connect(notice=screen.say)
    except Exception as error:
        if not isinstance(getattr(error, "cause", error), OutOfDiskError):
            raise
        node: Any = ray._private.worker._global_node
        folder = node.get_session_dir_path()
        disk = shutil.disk_usage(folder)
        raise UserError(
            f"Ray's shared memory is full, and it may not write to the disk of {folder}: "
            f"{disk.free / 1e9:.1f} GB are free there, and {FREE_SHARE * disk.total / 1e9:.1f} GB "
            "must stay free; make room, or set TMPDIR to a short path on another disk"
        ) from error
    finally:
        screen.end()
        shutdown()


def address() -> str | None:
    """Return `host:port` of the cluster to use: RAY_ADDRESS, else the one this machine is in.

    Raises PermissionError where the user may not know of that one.
    """
    wanted = os.environ.get("RAY_ADDRESS", "").strip()
    if wanted == "local":
        return None
    if "://" in wanted:
        raise UserError(
            f"RAY_ADDRESS={wanted}: a sweep joins Ray by host:port, on one of its machines; from "
            "elsewhere log in there (ray attach cluster.yaml), or submit it as a job to the "
            "http:// address (ray job submit): docs/cluster.md"
        )
    if wanted and wanted != "auto":
        return wanted
    with suppress(FileNotFoundError):
        return CURRENT_CLUSTER.read_text().strip() or None
    return None


def connect(cpus: int | None = None, notice: Callable[[str], None] = lambda _: None) -> Engine:
    """Join the running cluster, else start a quiet instance with `cpus` CPUs (None: all).

    Raises UserError where a cluster does not answer, or is named and cannot be joined.
    """
    # Ray's errors of tasks that it tries again go to the screen, against its settings.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    where, reason = None, ""
    try:
        if where := address():
            if not _answers(where):
                raise UserError(
                    f"the Ray cluster at {where} does not answer: start it again (ray up "
                    f"cluster.yaml); {LOCAL}"
                )
            _init(address=where)
            there, free = ray.cluster_resources(), ray.available_resources()
            amounts = [f"{there.get(k, 0):g} {k}s ({free.get(k, 0):g} free)" for k in RESOURCES]
            notice(f"Ray at {where}: {', '.join(amounts)}; {LOCAL}")
    except PermissionError as error:
        reason = f"this machine's Ray is another user's ({error.filename} is closed to this one)"
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        _, theirs, python, *_ = (line.strip() for line in str(error).splitlines())
        here = f"Ray {ray.__version__}, Python {platform.python_version()}"
        reason = f"the Ray at {where} is another version ({theirs}, {python}; here {here})"
    if reason:
        if os.environ.get("RAY_ADDRESS", "").strip():
            raise UserError(f"{reason}; {LOCAL}")
        notice(f"{reason}: it is not joined")
        where = None
    if where is None:
        _start(cpus)
    alive = sum(node["Alive"] for node in ray.nodes())
    return Engine(where, alive, ray.cluster_resources().get("GPU", 0.0))


def shutdown() -> None:
    """Leave the cluster, or end the instance on this machine with its processes and files."""
    ray.shutdown()
    _session.close()


def await_room(request: Mapping[str, float], progress: Progress) -> None:
    """Wait until there is room for a request, or only this job's own work is in its way.

    `progress` gets a line every half minute.
    """
    if not (ray.is_initialized() and what_is_missing(request)):
        return
    # a task, so that the autoscaler knows
    cpus, gpus = (request.get(kind, 0) for kind in RESOURCES)
    room = ray.remote(num_cpus=cpus, num_gpus=gpus)(lambda: None).remote()
    while not ray.wait([room], timeout=WAIT_SECONDS)[0]:
        progress(what_is_missing(request) or "waiting for a worker of Ray", 0, None)


def what_is_missing(request: Mapping[str, float]) -> str:
    """Return what a request waits for, and by whom it is held; empty where there is room."""
    there, free = ray.cluster_resources(), ray.available_resources()
    lacking = [name for name, amount in request.items() if free.get(name, 0) < amount]
    if any(there.get(name, 0) < request[name] for name in lacking):
        return "waiting for a node"
    own = ray.get_runtime_context().get_job_id()
    jobs = [
        f"{first_line(job['Entrypoint'])} (process {job['DriverPid']} on {job['DriverIPAddress']})"
        for job in ray._private.state.jobs()
        if not job["IsDead"] and job["JobID"] != own
    ]
    if not (lacking and jobs):
        return ""
    wanted = " and ".join(
        f"{request[name]:g} {name} ({free.get(name, 0):g} of {there[name]:g} free)"
        for name in lacking
    )
    return f"waiting for {wanted}, held by {'; '.join(jobs)}; {LOCAL}"


def gpus_per_run(engine: Engine, asked: float | None) -> float:
    """Return the GPUs of each run: as asked; None: 1 where the machines have GPUs, else 0.

    Raises UserError where that is not known yet: a sweep must not take to the CPU unasked.
    """
    if asked is not None:
        return asked
    joining = nodes_to_join(engine)
    if engine.gpus or any(node.get("GPU") for node in joining):
        return 1.0
    if {} in joining:
        raise UserError(
            "no node has a GPU yet, but others may join: set resources.gpus_per_run in the sweep "
            "file (0: run on CPUs, 1: wait for nodes with GPUs)"
        )
    return 0.0


def nodes_to_join(engine: Engine) -> list[dict[str, float]]:
    """Return the resources of each kind of node that may still join; empty where not known."""
    file = BOOTSTRAP.expanduser()
    if engine.address is not None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return [{}]
    if engine.address is None or not file.exists():
        return []
    kinds = yaml.safe_load(file.read_text()).get("available_node_types", {}).values()
    # A kind without resources is that of a fixed list of machines, of which `engine.nodes` joined.
    return [
        kind.get("resources") or {}
        for kind in kinds
        if kind.get("max_workers", 0) > (0 if kind.get("resources") else engine.nodes)
    ]


def _start(cpus: int | None) -> None:
    folder = tempfile.gettempdir()
    folder = folder if len(folder) < 24 else "/tmp"  # the path of a socket may have 107 bytes
    scratch = tempfile.TemporaryDirectory("", "featgan-", folder, ignore_cleanup_errors=True)
    try:
        _init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=_session.enter_context(scratch),
        )
    except Exception as error:  # Ray raises nothing more special
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine within 30 s: it is busy with other work; run the "
            "same command again when it is less so"
        ) from error


def _init(**options: Any) -> None:
    # Ray's own handler of SIGTERM ends the process without a message. Its processes must outlive
    # a terminal that closes, until the runs have saved themselves.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _silence():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _answers(where: str) -> bool:
    host, _, port = where.rpartition(":")
    with suppress(OSError, ValueError):
        socket.create_connection((host.strip("[]"), int(port)), 3.0).close()
        return True
    return False


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray's C++ core writes to standard error, its log level say, off the screen."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
