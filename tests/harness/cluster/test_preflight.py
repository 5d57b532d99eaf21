"""What a node lacks is named before a run waits for it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from featgan.errors import UserError
from harness.cluster import preflight
from harness.storage.store import Store

HEAD = {"CPU": 4.0}
GPU = {"CPU": 8.0, "GPU": 2.0}


def test_a_request_that_no_node_meets_is_refused() -> None:
    preflight._check_request({"CPU": 8, "GPU": 2}, [HEAD, GPU], [])
    preflight._check_request({"CPU": 4, "GPU": 0}, [HEAD], [])
    with pytest.raises(UserError, match=r"for 1 CPU and 4 GPU, but .* 2 nodes has is 8 CPU"):
        preflight._check_request({"CPU": 1, "GPU": 4}, [HEAD, GPU], [])


def test_a_cpu_and_a_gpu_on_two_nodes_do_not_make_a_run() -> None:
    with pytest.raises(UserError):
        preflight._check_request({"CPU": 12, "GPU": 1}, [{"CPU": 16.0}, GPU], [])


def test_a_request_that_a_joining_node_meets_waits_for_it() -> None:
    joining = [{"CPU": 8.0, "GPU": 1.0}]
    preflight._check_request({"CPU": 1, "GPU": 1}, [HEAD], joining)
    preflight._check_request({"CPU": 1, "GPU": 1}, [HEAD], [{}])  # its resources are unknown
    with pytest.raises(UserError):
        preflight._check_request({"CPU": 1, "GPU": 2}, [HEAD], joining)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.put("paper/groups/a.json", b"{}")
    return store


def _problems(store: Store, key: str = "paper/groups/a.json", **more: Any) -> list[str]:
    wanted = {"expected": preflight.versions(), "files": [], "gpu": False}
    return preflight.check_node(store, key, **wanted | more)


def test_a_fit_node_has_no_problems_and_keeps_no_probe(store: Store) -> None:
    assert _problems(store, files=["/"]) == []
    assert store.list() == ["paper/groups/a.json"]


def test_a_mount_that_is_not_there_is_named(store: Store) -> None:
    (problem,) = _problems(store, "paper/groups/b.json")
    assert problem.startswith(f"cannot use the storage {store.root} (FileNotFoundError: ")
    assert "paper/groups/b.json" in problem
    assert "mount it at the same path" in problem


def denied(*_: Any) -> None:
    raise PermissionError(13, "no")


def test_a_storage_that_takes_no_files_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "put", denied)
    (problem,) = _problems(store)
    assert problem.startswith(
        f"cannot use the storage {store.root} (PermissionError: [Errno 13] no)"
    )


def test_a_missing_file_is_named_where_the_run_looks(store: Store) -> None:
    assert _problems(store, files=["/no/weights.pt", "weights.pt"]) == [
        "does not see /no/weights.pt",
        f"does not see weights.pt (in {os.getcwd()}: name it from /)",
    ]


def test_another_version_is_named(store: Store) -> None:
    (problem,) = _problems(store, expected=preflight.versions() | {"torch": "1.0"})
    assert re.fullmatch(r"has torch [0-9.+cu]+, the sweep's driver 1\.0", problem)


def test_a_gpu_that_pytorch_cannot_use_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _problems(store) == []
    (problem,) = _problems(store, gpu=True)
    assert problem.startswith(f"has a GPU, but PyTorch {torch.__version__} cannot use the GPU: ")
    assert "resources.gpus_per_run: 0" in problem


def test_a_changed_source_file_is_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gans").mkdir()
    (tmp_path / "gans" / "gan.py").write_text("a = 1\n")
    monkeypatch.setattr(preflight.featgan, "__path__", [str(tmp_path)])
    versions = preflight.versions.__wrapped__  # not the cached ones of this process
    before = versions()
    (tmp_path / "gans" / "gan.py").write_text("a = 2\n")
    after = versions()
    assert before["featgan"] != after["featgan"]
    assert {**before, "featgan": ""} == {**after, "featgan": ""}


def test_a_changed_user_defined_function_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_order.py").write_text("mine = 1\n")
    functions = preflight.functions(["ascending", "own_order:mine", "own_absent:mine"])
    assert [*functions] == ["own_order:mine", "own_absent:mine"]
    here = {"own_order:mine": functions["own_order:mine"]}
    assert _problems(store, expected=here) == []
    (tmp_path / "own_order.py").write_text("mine = 2\n")
    (problem,) = _problems(store, expected=here)
    assert problem.endswith(f", the sweep's driver {functions['own_order:mine']}")
    (problem,) = _problems(store, expected={"own_absent:mine": "0a1b"})
    assert problem == "has own_absent:mine no such file, the sweep's driver 0a1b"


def test_a_run_on_an_unfit_node_fails_naming_the_node(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node may have joined after the look at all nodes."""
    waits: list[float] = []
    monkeypatch.setattr(ray, "nodes", lambda: 2 * [{"Alive": True}])
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    expected = preflight.versions()
    preflight.check_this_node(store, "paper/groups/a.json", expected, [], False)
    assert waits == []
    name = rf"node {os.uname().nodename} \(10\.0\.0\.7\)"
    with pytest.raises(RuntimeError, match=f"^{name} does not see /no/w; cannot use the stor"):
        preflight.check_this_node(store, "paper/groups/b.json", expected, ["/no/w"], False)
    assert waits == [preflight.UNFIT_SECONDS], "other nodes get the waiting runs"


@pytest.fixture
def two_nodes(own_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two real nodes of one Ray on this machine."""
    monkeypatch.setenv("RAY_health_check_initial_delay_ms", "0")
    connect = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8}
    )
    connect.add_node(num_cpus=1, object_store_memory=10**8)
    ray.init(connect.address, log_to_driver=False, logging_level="ERROR")
    yield connect
    ray.shutdown()
    connect.shutdown()


def test_a_node_that_leaves_while_it_is_asked_is_ignored(
    two_nodes: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_node(store: Store, key: str, expected: dict[str, str], *_: Any) -> list[str]:
        if ray.get_runtime_context().get_node_id() == gone:
            time.sleep(600)
        return ["is asked"]

    leaving = next(iter(two_nodes.worker_nodes))
    gone = leaving.node_id
    monkeypatch.setattr(preflight, "check_node", check_node)

    def wait_while_it_leaves(asked: list[ray.ObjectRef], **options: Any) -> None:
        two_nodes.remove_node(leaving, allow_graceful=False)
        wait(asked, **options)

    wait = ray.wait
    monkeypatch.setattr(preflight.ray, "wait", wait_while_it_leaves)
    with pytest.raises(UserError, match=r"^preflight: node [^;]* is asked$"):
        preflight.check_cluster(store, {"CPU": 1, "GPU": 0}, files=[])
    assert store.list() == ["paper/groups/a.json"]
