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
import yaml
from ray.cluster_utils import Cluster

from harness.cluster import connect, preflight
from harness.storage.store import Store

HEAD = {"NodeID": "a", "Resources": {"CPU": 4.0}}
GPU = {"NodeID": "b", "Resources": {"CPU": 8.0, "GPU": 2.0}}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(connect, "BOOTSTRAP", tmp_path / "ray_bootstrap_config.yaml")


def _unmet(nodes: list[dict[str, Any]], **request: float) -> tuple[list[str], list[str]]:
    notices: list[str] = []
    return preflight._unmet(nodes, request, True, notices.append), notices


def test_what_no_node_has_is_an_error() -> None:
    assert _unmet([HEAD, GPU], CPU=8, GPU=2) == ([], [])
    (problem,), _ = _unmet([HEAD, GPU], CPU=1, GPU=4)
    assert problem.startswith("a run asks for 1 CPU and 4 GPU, but the most that one of 2 nodes")
    assert "8 CPU, 2 GPU" in problem
    assert _unmet([HEAD], CPU=4, GPU=0) == ([], [])


def test_a_cpu_and_a_gpu_on_different_nodes_do_not_make_a_run() -> None:
    assert _unmet([HEAD | {"Resources": {"CPU": 16.0}}, GPU], CPU=12, GPU=1)[0]


def test_what_the_cluster_may_still_start_is_only_told(tmp_path: Path) -> None:
    types = {"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}}
    connect.BOOTSTRAP.write_text(yaml.safe_dump({"available_node_types": types}))
    assert _unmet([HEAD], CPU=1, GPU=1) == (
        [],
        ["no node has 1 CPU and 1 GPU yet; runs wait for a node of type gpu"],
    )
    assert _unmet([HEAD], CPU=1, GPU=2)[0], "that type never has two"
    types["gpu"]["max_workers"] = 0
    connect.BOOTSTRAP.write_text(yaml.safe_dump({"available_node_types": types}))
    assert _unmet([HEAD], CPU=1, GPU=1)[0], "none of that type may start"


def test_machines_that_have_not_joined_yet_are_waited_for() -> None:
    types = {"local.cluster.node": {"resources": {}, "max_workers": 3}}
    connect.BOOTSTRAP.write_text(yaml.safe_dump({"available_node_types": types}))
    assert _unmet([HEAD], GPU=1) == ([], ["no node has 1 GPU yet; 1 of up to 3 nodes have joined"])
    assert _unmet([HEAD, HEAD, HEAD], GPU=1)[0]
    # a cluster file, or Kubernetes, around one machine's own Ray
    assert preflight._unmet([HEAD], {"GPU": 1}, False, pytest.fail)


def test_a_mount_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "results"))
    sight = preflight.look(store, "token", "node", [], False)
    assert "does not see the storage" in sight.problems[0]
    assert str(tmp_path / "results") in sight.problems[0]
    assert sight.versions == preflight.versions()


def test_data_and_a_foreign_token_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("preflight-token/driver", b"another's")
    sight = preflight.look(store, "token", "node", [str(tmp_path), str(tmp_path / "photos")], False)
    assert sight.problems == [
        f"reads something else than was written to {tmp_path}",
        f"does not see {tmp_path / 'photos'}",
    ]
    assert store.get("preflight-token/node") == b"token"


def test_a_relative_path_is_looked_for_where_the_run_would(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("preflight-token/driver", b"token")
    (problem,) = preflight.look(store, "token", "node", ["weights.pt"], False).problems
    assert problem == f"does not see weights.pt (in {os.getcwd()}: name it from /)"


def test_a_node_that_joined_late_is_named_where_it_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.put("paper/groups/a.json", b"{}")
    here = preflight.versions()

    def reason(key: str = "a", **more: Any) -> str:
        arguments: dict[str, Any] = {"expected": here} | more
        return preflight.unfit(store, f"paper/groups/{key}.json", **arguments) or ""

    assert reason() == ""
    assert store.list() == ["paper/groups/a.json"]
    assert re.match(f"node {os.uname().nodename} .*does not see {tmp_path}", reason("b"))
    wrong = here | {"torch": "1.0"}
    assert re.search(r"has torch [0-9.+cu]+, the sweep's driver 1\.0", reason(expected=wrong))
    assert reason(files=["/no/weights.pt"]).endswith("does not see /no/weights.pt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "has a GPU, but PyTorch" in reason(gpu=True)
    assert "resources.gpus_per_run: 0" in reason(gpu=True)
    monkeypatch.setattr(Store, "put", denied)
    assert reason().endswith(f"cannot use the storage {tmp_path}: PermissionError: [Errno 13] no")


def denied(*_: Any) -> None:
    raise PermissionError(13, "no")


class Clock:
    """Time that passes only when someone sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_run_waits_on_an_unfit_node_until_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(), list[str]()
    monkeypatch.setattr(preflight, "time", clock)

    def unfit() -> str | None:
        return None if clock.now >= 100 else "no mount" if clock.now < 50 else "read-only"

    assert preflight.await_fit(unfit, lambda: False, told.append)
    assert (clock.now, told) == (100, ["no mount", "read-only"])


def test_a_node_that_stays_unfit_is_left_after_an_hour_or_when_the_sweep_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = Clock(), list[str]()
    monkeypatch.setattr(preflight, "time", clock)
    with pytest.raises(RuntimeError, match="no mount"):
        preflight.await_fit(lambda: "no mount", lambda: denied() is None, told.append)
    assert (clock.now, told) == (3600, ["no mount"])
    assert not preflight.await_fit(lambda: "no mount", lambda: True, told.append)
    assert clock.now == 3610


def test_a_gpu_that_pytorch_cannot_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.put("preflight-token/driver", b"token")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert preflight.look(store, "token", "node", [], False).problems == []
    (problem,) = preflight.look(store, "token", "node", [], True).problems
    assert problem.startswith(f"has a GPU, but PyTorch {torch.__version__} cannot use the GPU: ")


def test_a_changed_source_file_is_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stages.py").write_text("a = 1\n")
    monkeypatch.setattr(preflight.featgan, "__path__", [str(tmp_path)])
    before = preflight.versions()
    (tmp_path / "stages.py").write_text("a = 2\n")
    after = preflight.versions()
    assert before["featgan"] != after["featgan"]
    assert {**before, "featgan": ""} == {**after, "featgan": ""}


def test_a_node_with_another_function_of_ones_own_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    store = Store(str(tmp_path))
    store.put("groups.json", b"")
    (tmp_path / "own_order.py").write_text("mine = 1\n")
    functions = preflight.functions(["ascending", "own_order:mine", "own_absent:mine"])
    assert [*functions] == ["own_order:mine", "own_absent:mine"]

    here = preflight.versions() | {"own_order:mine": functions["own_order:mine"]}
    assert preflight.unfit(store, "groups.json", here) is None
    (tmp_path / "own_order.py").write_text("mine = 2\n")
    told = preflight.unfit(store, "groups.json", here)
    assert told is not None
    assert f"the sweep's driver {functions['own_order:mine']}" in told
    missing = preflight.unfit(store, "groups.json", here | {"own_absent:mine": "0a1b"})
    assert missing is not None
    assert "has own_absent:mine no such file, the sweep's driver 0a1b" in missing


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


def test_a_node_that_leaves_while_it_is_asked_is_done_without(
    two_nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(store: Store, token: str, node: str, files: list[str], gpu: bool) -> preflight.Sight:
        if node == gone:
            time.sleep(600)
        return preflight.Sight(here)

    here, notices = preflight.versions(), []
    leaving = next(iter(two_nodes.worker_nodes))
    gone = leaving.node_id
    monkeypatch.setattr(preflight, "look", look)

    def wait_while_it_leaves(asked: list[ray.ObjectRef], **options: Any) -> None:
        two_nodes.remove_node(leaving, allow_graceful=False)
        wait(asked, **options)

    wait = ray.wait
    monkeypatch.setattr(preflight.ray, "wait", wait_while_it_leaves)
    store = Store(str(tmp_path))
    staying = two_nodes.head_node.node_id
    store.put(f"preflight-token/{staying}", b"token")
    seen = preflight._look_around(ray.nodes(), store, "token", [], False, 60, notices.append)
    assert [sight.problems for sight in seen.values()] == [[]]
    (notice,) = notices
    assert "has left the cluster a moment ago: runs do without it" in notice
