"""Which cluster a sweep joins, and how many GPUs its runs ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from featgan.errors import UserError
from harness.cluster import connect
from harness.cluster.connect import Engine

HERE = Engine(None, 1, 0.0)
HEAD = Engine("10.0.0.1:6379", 1, 0.0)
AWS = Path(__file__).parents[3] / "cluster.yaml"


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connect, "CURRENT_CLUSTER", tmp_path / "ray_current_cluster")
    monkeypatch.setattr(connect, "BOOTSTRAP", tmp_path / "ray_bootstrap_config.yaml")


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer: .*RAY_ADDRESS=local"):
        connect.connect()


def test_the_cluster_is_the_named_or_the_running_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect.address() is None
    connect.CURRENT_CLUSTER.write_text("10.0.0.1:6379\n")
    assert connect.address() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert connect.address() == "10.0.0.2:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert connect.address() is None
    for elsewhere in ("ray://head:10001", "http://head:8265"):
        monkeypatch.setenv("RAY_ADDRESS", elsewhere)
        with pytest.raises(UserError, match=f"ESS={elsewhere}: .* host:port.* submit it as a"):
            connect.address()


def test_runs_use_gpus_where_nodes_have_them() -> None:
    assert connect.gpus_per_run(HERE, None) == 0
    assert connect.gpus_per_run(Engine(None, 1, 2.0), None) == 1
    assert connect.gpus_per_run(Engine(None, 1, 2.0), 0.25) == 0.25
    assert connect.gpus_per_run(HEAD, None) == 0, "a fixed cluster, all of it there"


def _ray_up(**kinds: dict[str, object]) -> None:
    connect.BOOTSTRAP.write_text(yaml.safe_dump({"available_node_types": kinds}))


def test_gpus_that_the_autoscaler_may_start_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _ray_up(
        a={"resources": {"CPU": 8}, "max_workers": 2},
        b={"resources": {"GPU": 8}, "max_workers": 0},
    )
    assert connect.nodes_to_join(HEAD) == [{"CPU": 8}]
    assert connect.gpus_per_run(HEAD, None) == 0
    monkeypatch.setattr(connect, "BOOTSTRAP", AWS)
    assert connect.gpus_per_run(HEAD, None) == 1, "the AWS cluster starts without a worker"
    assert connect.gpus_per_run(HERE, None) == 0, "this machine's own Ray never grows"


def test_nodes_of_unknown_kind_make_no_sweep_run_on_cpus_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _ray_up(a={"resources": {}, "max_workers": 3})
    with pytest.raises(UserError, match=r"others may join: set resources\.gpus_per_run"):
        connect.gpus_per_run(HEAD, None)
    assert connect.gpus_per_run(HEAD, 0) == 0
    assert connect.gpus_per_run(Engine("10.0.0.1:6379", 2, 1.0), None) == 1
    assert connect.gpus_per_run(Engine("10.0.0.1:6379", 3, 0.0), None) == 0, "all have joined"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.9")
    with pytest.raises(UserError, match=r"set resources\.gpus_per_run"):
        connect.gpus_per_run(Engine("10.0.0.1:6379", 3, 0.0), None)
