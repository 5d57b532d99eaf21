"""Check that nodes are fit for a sweep: all of them before the first run, then each run's own.

Finds what would otherwise show only hours later: a mount that exists on the head alone, another
version of the code, missing data, a request that no node can meet.
"""

import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
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
from harness.cluster import machine
from harness.cluster.connect import LOCAL
from harness.storage.store import Store

Offers = Sequence[Mapping[str, float]]
"""The resources of nodes."""
ANSWER_SECONDS = 60.0
"""How long all nodes together may take to answer."""
UNFIT_SECONDS = 300.0
"""How long a run on an unfit node waits before it fails, if there are other nodes."""


def check_cluster(
    store: Store, request: Mapping[str, float], *, files: Sequence[str], joining: Offers = ()
) -> None:
    """Raise a UserError that names every node unfit for the sweep, and why.

    `request` are the resources of a run, `files` paths that every node must see; `joining` the
    resources of nodes that may still join, empty where not known. Ray is connected already.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    _check_request(request, [node["Resources"] for node in nodes], joining)
    key = f"preflight-{uuid.uuid4().hex}"
    store.put(key, b"")
    # Without num_gpus Ray hides none, and no GPU has to be free.
    task: Any = ray.remote(num_cpus=0, max_retries=0)(check_node)
    answers = []
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        gpu = request["GPU"] > 0 and node["Resources"].get("GPU", 0) > 0
        asked = task.options(scheduling_strategy=here)
        answers.append(asked.remote(store, key, versions(), files, gpu))
    try:
        ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS)
        problems = [
            f"{_name(node['NodeManagerHostname'], node['NodeManagerAddress'])} {problem}"
            for node, answer in zip(nodes, answers, strict=True)
            for problem in _problems(node, answer)
        ]
    finally:
        store.delete(key)
    if problems:
        raise UserError("preflight: " + "; ".join(problems))


def check_node(
    store: Store, key: str, expected: Mapping[str, str], files: Sequence[str], gpu: bool
) -> list[str]:
    """Return what makes this node unfit; empty where it is fit.

    It must see `key` in the storage and be able to write there, have the `expected` versions, of
    user-defined functions too, see `files` and, with `gpu`, have one that PyTorch can use.
    """
    here = versions() | functions(expected)
    problems = [
        f"has {library} {here.get(library)}, the sweep's driver {version}"
        for library, version in expected.items()
        if here.get(library) != version
    ]
    for path in files:
        if not os.path.exists(os.path.expanduser(path)):
            relative = "" if path.startswith(("/", "~")) else f" (in {os.getcwd()}: name it from /)"
            problems.append(f"does not see {path}{relative}")
    if gpu and (reason := machine.why_no_gpu()):
        problems.append(f"has a GPU, but {reason}")
    try:
        store.get(key)
        probe = f"preflight-{uuid.uuid4().hex}"
        store.put(probe, b"")
        store.delete(probe)
    except Exception as error:  # each client of a storage has errors of its own
        problems.append(
            f"cannot use the storage {store.root} ({_reason(error)}): mount it at the same path, "
            "or let `results` be a shared mount or a bucket"
        )
    return problems


def check_this_node(
    store: Store, key: str, expected: Mapping[str, str], files: Sequence[str], gpu: bool
) -> None:
    """Raise a RuntimeError that names this node where it is unfit, so that Tune tries again.

    For the start of a run, whose node may have joined after the look at all of them.
    """
    if problems := check_node(store, key, expected, files, gpu):
        if sum(node["Alive"] for node in ray.nodes()) > 1:
            # A place that is free at once would draw one waiting run after the other, and use up
            # their tries.
            time.sleep(UNFIT_SECONDS)
        name = _name(platform.node(), ray.util.get_node_ip_address())
        raise RuntimeError(f"{name} {'; '.join(problems)}")


@cache
def versions() -> dict[str, str]:
    """Return what must be equal on all nodes: versions of the libraries and a hash of this code.

    Cached, because files that change later do not change what this process has loaded.
    """
    code = hashlib.sha256()
    for package in (featgan, harness):
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            code.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return machine.versions() | {"featgan": code.hexdigest()[:12]}


def functions(names: Iterable[str]) -> dict[str, str]:
    """Return a hash of the file of each user-defined `module:function` among the names."""
    return {name: (source_digest(name) or "no such file")[:12] for name in names if ":" in name}


def _problems(node: Mapping[str, Any], answer: ray.ObjectRef) -> list[str]:
    """Return what a node answered, or why it did not."""
    try:
        return list(ray.get(answer, timeout=0))
    except GetTimeoutError:
        return [f"has not answered for {ANSWER_SECONDS:.0f} s: is its storage hanging?"]
    except (RayError, ImportError) as error:
        if not any(n["NodeID"] == node["NodeID"] and n["Alive"] for n in ray.nodes()):
            return []  # it has left the cluster a moment ago: runs do without it
        return [
            f"cannot run this code ({_reason(error)}): start its Ray in the environment of this "
            f"command; {LOCAL}"
        ]


def _check_request(request: Mapping[str, float], nodes: Offers, joining: Offers) -> None:
    """Raise UserError for a request that no node meets and none that may join: it would wait."""
    request = {name: amount for name, amount in request.items() if amount > 0}
    for offer in [*nodes, *joining]:
        if not offer or all(offer.get(name, 0) >= amount for name, amount in request.items()):
            return
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in request.items())
    most = ", ".join(f"{max(node.get(name, 0) for node in nodes):g} {name}" for name in request)
    raise UserError(
        f"preflight: a run asks for {wanted}, but the most that one of {len(nodes)} nodes has is "
        f"{most}: lower `resources`, or add such a node"
    )


def _name(host: str, address: str) -> str:
    return f"node {host} ({address})"


def _reason(error: BaseException) -> str:
    """Return the last line of an error: Ray puts a remote traceback before it."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[-1].split())[:200]}"
