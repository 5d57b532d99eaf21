"""The Ray that a sweep runs on: a running cluster, or a quiet instance on this machine.

The instance ends with the process that started it: Ray's own processes end when their parent
dies, at the latest a minute after it was killed.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from featgan.errors import UserError
from harness import CURRENT_CLUSTER

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""The cluster file as `ray up` left it on the head: the nodes that the autoscaler may start."""
OBJECT_STORE_BYTES = 1_000_000_000
"""Shared memory of the instance on this machine."""

_session = ExitStack()
"""Removes the files of the instance that this process started."""


@dataclass(frozen=True)
class Engine:
    """The Ray we are connected to, with what its nodes had at that moment."""

    address: str | None
    """`host:port` of a cluster; None for the instance on this machine."""
    nodes: int
    gpus: float


def address() -> str | None:
    """Return `host:port` of the cluster to use: RAY_ADDRESS, else the one this machine is in."""
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
    options: dict[str, Any] = {"address": where}
    if where is None:
        folder = tempfile.gettempdir()
        folder = folder if len(folder) < 24 else "/tmp"  # the path of a socket may have 107 bytes
        scratch = tempfile.TemporaryDirectory("", "featgan-", folder, ignore_cleanup_errors=True)
        options = {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": _session.enter_context(scratch),
        }
    # Ray's own handler of SIGTERM ends the process without a message. Its processes must outlive
    # a terminal that closes, until the runs have saved themselves.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _silence():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises nothing more special
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start on this machine within 30 s: it is busy with other work; run the "
            "same command again when it is less so"
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    alive = sum(node["Alive"] for node in ray.nodes())
    return Engine(where, alive, ray.cluster_resources().get("GPU", 0.0))


def shutdown() -> None:
    """Leave the cluster, or end the instance on this machine with its processes and files."""
    ray.shutdown()
    _session.close()


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
    if engine.address is None:
        return []
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return [{}]
    file = BOOTSTRAP.expanduser()
    if not file.exists():
        return []
    kinds = yaml.safe_load(file.read_text()).get("available_node_types", {}).values()
    # A kind without resources is that of a fixed list of machines, of which `engine.nodes` joined.
    return [
        kind.get("resources") or {}
        for kind in kinds
        if kind.get("max_workers", 0) > (0 if kind.get("resources") else engine.nodes)
    ]


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
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
