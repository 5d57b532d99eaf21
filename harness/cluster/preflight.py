"""Is every node fit for this sweep? Asked in seconds, before any run waits for a GPU.

Looks at what would otherwise show only hours later: a mount that exists on the head alone,
another version of the code, missing data, a request that no node can ever meet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import featgan
import harness
from featgan.errors import UserError
from featgan.user_code import source_digest
from harness.cluster import connect, machine
from harness.storage.redaction import one_line
from harness.storage.store import Store

UNFIT_SECONDS = 3600.0
"""How long a run waits on a node that is unfit for it, for someone to mend the node."""
UNFIT_PAUSE = 10.0


@dataclass(frozen=True)
class Sight:
    """What one node sees."""

    versions: dict[str, str]
    problems: list[str] = field(default_factory=list)


def preflight(
    store: Store,
    *,
    files: Sequence[str] = (),
    cpus_per_run: float = 1,
    gpus_per_run: float = 0,
    may_grow: bool = True,
    notice: Callable[[str], None] = print,
    seconds: float = 60,
) -> None:
    """Raise a UserError that names every node unfit for the sweep, and why.

    `files` are paths that every node must see. Ray is connected already; what cannot be met
    now but may be once the cluster has grown is told through `notice`. One machine's own Ray
    never grows.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    request = {"CPU": cpus_per_run, "GPU": gpus_per_run}
    problems = _unmet(nodes, request, may_grow, notice)
    token = uuid.uuid4().hex
    try:
        problems += _storage_problems(store, token)
        if not problems:
            for name, sight in _look_around(
                nodes, store, token, files, gpus_per_run > 0, seconds, notice
            ).items():
                problems += [f"{name} {problem}" for problem in sight.problems]
    finally:
        _forget(store, token)
    if problems:
        raise UserError("preflight: " + "; ".join(problems))


def look(store: Store, token: str, node: str, files: Sequence[str], gpu: bool) -> Sight:
    """Runs on a node: read the driver's token, write one, find the data, tell the versions.

    With `gpu`, PyTorch must be able to use one.
    """
    problems = []
    try:
        if store.get(f"preflight-{token}/driver") != token.encode():
            problems.append(f"reads something else than was written to {store.root}")
        store.put(f"preflight-{token}/{node}", token.encode())
    except FileNotFoundError:
        problems.append(
            f"does not see the storage {store.root} of this machine: mount it there at the same "
            "path, or let `results` be a shared mount or a bucket"
        )
    except Exception as error:
        problems.append(f"cannot use the storage {store.root}: {_reason(error)}")
    return Sight(versions(), problems + _lacking(files, gpu))


def _lacking(files: Sequence[str], gpu: bool) -> list[str]:
    """What this node lacks besides the storage."""
    problems = []
    for path in files:
        if not os.path.exists(os.path.expanduser(path)):
            relative = "" if path.startswith(("/", "~")) else f" (in {os.getcwd()}: name it from /)"
            problems.append(f"does not see {path}{relative}")
    if gpu and (reason := machine.why_no_gpu()):
        problems.append(f"has a GPU, but {reason}")
    return problems


def unfit(
    store: Store,
    key: str,
    expected: Mapping[str, str],
    files: Sequence[str] = (),
    gpu: bool = False,
) -> str | None:
    """Runs where a run has landed, which may be a node that joined after the preflight.

    Why the node is unfit, with its name; None where it sees `key` in the storage, can write
    there, has the `expected` versions, of functions of one's own too, sees `files` and, with
    `gpu`, can use one.
    """
    problems = _differences(_loaded() | functions(expected), expected) + _lacking(files, gpu)
    try:
        if not store.exists(key):
            problems.append(f"does not see {store.join(key)}")
        else:
            token = uuid.uuid4().hex
            store.put(f"preflight-{token}/run", b"")
            _forget(store, token)
    except Exception as error:
        problems.append(f"cannot use the storage {store.root}: {_reason(error)}")
    if not problems:
        return None
    return f"node {platform.node()} ({ray.util.get_node_ip_address()}) {'; '.join(problems)}"


def await_fit(
    unfit: Callable[[], str | None],
    stopped: Callable[[], bool],
    tell: Callable[[str], None],
) -> bool:
    """Wait until this node is fit; False where the sweep is stopped meanwhile.

    A run that failed at once would free its place for the next, and a single unfit node would
    soon have failed all that wait. So the place stays taken, and the reason is told; after an
    hour it is raised as a RuntimeError, and the run is tried again.
    """
    deadline, told = time.monotonic() + UNFIT_SECONDS, None
    while reason := unfit():
        if time.monotonic() >= deadline:
            raise RuntimeError(reason)
        if reason != told:
            tell(reason)
            told = reason
        time.sleep(UNFIT_PAUSE)
        with suppress(Exception):  # the storage may be what this node lacks
            if stopped():
                return False
    return True


@cache
def _loaded() -> dict[str, str]:
    """The versions that this process has loaded: files mended later do not change them."""
    return versions()


def versions() -> dict[str, str]:
    """What must be equal on all nodes for their runs to be comparable."""
    code = hashlib.sha256()
    for package in (featgan, harness):
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            code.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return machine.versions() | {"featgan": code.hexdigest()[:12]}


def functions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those that are a `module:function` of one's own."""
    return {name: (source_digest(name) or "no such file")[:12] for name in names if ":" in name}


def _look_around(
    nodes: Sequence[Mapping[str, Any]],
    store: Store,
    token: str,
    files: Sequence[str],
    gpu: bool,
    seconds: float,
    notice: Callable[[str], None],
) -> dict[str, Sight]:
    """What each node sees, by its name; all of them look at the same time."""
    # Without num_gpus Ray hides none, so that it is not waited for: other runs may have them all.
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeID"]] = task.options(scheduling_strategy=there).remote(
            store, token, node["NodeID"], files, gpu and node["Resources"].get("GPU", 0) > 0
        )
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    here = versions()
    seen = {}
    for node in nodes:
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            sight = ray.get(asked[node["NodeID"]], timeout=0)
        except GetTimeoutError:
            sight = Sight(here, [f"has not answered for {seconds:.0f} s: is its storage hanging?"])
        except (RayError, ImportError) as error:
            if not _is_alive(node["NodeID"]):
                notice(f"{name} has left the cluster a moment ago: runs do without it")
                continue
            sight = Sight(here, [f"cannot run this code: {_reason(error)}"])
        else:
            if not sight.problems and not store.exists(f"preflight-{token}/{node['NodeID']}"):
                sight.problems.append(f"writes to {store.root}, but nothing arrives here")
        seen[name] = Sight(here, sight.problems + _differences(sight.versions, here))
    return seen


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return [
        f"has {library} {there.get(library)}, the sweep's driver {version}"
        for library, version in here.items()
        if there.get(library) != version
    ]


def _is_alive(node: str) -> bool:
    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())


def _storage_problems(store: Store, token: str) -> list[str]:
    try:
        store.put(f"preflight-{token}/driver", token.encode())
    except Exception as error:
        return [f"cannot write to the storage {store.root}: {_reason(error)}"]
    return []


def _forget(store: Store, token: str) -> None:
    try:
        store.delete(f"preflight-{token}")
    except Exception:  # the storage's problem is reported already
        return


def _unmet(
    nodes: Sequence[Mapping[str, Any]],
    request: Mapping[str, float],
    may_grow: bool,
    notice: Callable[[str], None],
) -> list[str]:
    """A request that neither a node nor a node type can ever meet would wait for ever."""
    request = {name: amount for name, amount in request.items() if amount > 0}
    if any(_fits(request, node["Resources"]) for node in nodes):
        return []
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in request.items())
    most = ", ".join(
        f"{max(node['Resources'].get(name, 0) for node in nodes):g} {name}" for name in request
    )
    growing = _growing(request, len(nodes)) if may_grow else None
    if growing is None:
        return [
            f"a run asks for {wanted}, but the most that one of {len(nodes)} nodes has is {most}: "
            "lower `resources`, or add such a node"
        ]
    notice(f"no node has {wanted} yet; {growing}")
    return []


def _growing(request: Mapping[str, float], alive: int) -> str | None:
    """Why a node that meets the request may still come; None where it cannot."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "runs wait for Kubernetes to start one"
    for name, kind in connect.node_types().items():
        resources = kind.get("resources") or {}
        if _fits(request, resources) and kind.get("max_workers", 0) > 0:
            return f"runs wait for a node of type {name}"
        if not resources and alive < kind.get("max_workers", 0):
            return f"{alive} of up to {kind['max_workers']} nodes have joined"
    return None


def _fits(request: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0) >= amount for name, amount in request.items())


def _reason(error: BaseException) -> str:
    """The last line of an error: Ray puts a remote traceback before it."""
    lines = str(error).strip().splitlines() or [""]
    return one_line(f"{type(error).__name__}: {lines[-1]}")
