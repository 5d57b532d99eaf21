"""The quiet instance on this machine: loopback only, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.cluster import connect

DRIVER = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.default_int_handler)
from harness import cluster
engine = cluster.connect(cpus=1)
import ray

@ray.remote
class Busy:
    def hello(self):
        return os.getpid()

actor = Busy.remote()
ray.get(actor.hello.remote())
sockets = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
ours = {str(pid) for pid in cluster._processes(cluster._Session.folder)} | {str(os.getpid())}
print("TERM", signal.getsignal(signal.SIGTERM) is signal.default_int_handler)
print("ENGINE", engine.address, engine.nodes, engine.cpus)
print("OURS", *ours)
for line in sockets.splitlines():
    if any(f"pid={pid}," in line for pid in ours):
        print("LISTEN", line.split()[3])
sys.stdout.flush()
if sys.argv[1] == "stay":
    sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def driver(own_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A command that starts Ray in a process of its own, with its own temporary folder."""
    monkeypatch.setattr(connect, "CURRENT_CLUSTER", tmp_path / "none")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("TMPDIR", f"/tmp/fg{os.getpid()}")
    Path(f"/tmp/fg{os.getpid()}").mkdir()
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    yield [sys.executable, str(script)]
    shutil.rmtree(f"/tmp/fg{os.getpid()}")


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/fd").exists() and _state(pid) != "Z"]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and ss")
def test_the_local_instance_listens_on_loopback_only_and_ends(driver: list[str]) -> None:
    run = subprocess.run([*driver, "end"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines.pop(0) == "TERM True", "Ray's own ends the process without a word"
    assert lines[0] == "ENGINE None 1 1.0"
    ours = [int(pid) for pid in lines[1].split()[1:]]
    assert len(ours) > 5
    listening = [line.split()[1].rpartition(":")[0] for line in lines if line.startswith("LISTEN")]
    assert listening
    assert {address.strip("[]") for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert _alive(ours) == []
    assert list(Path(os.environ["TMPDIR"]).glob("featgan-*/*")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_next_driver_ends_what_a_killed_one_left(
    driver: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = subprocess.Popen([*driver, "stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    first.stdout.readline()
    ours = [int(pid) for pid in first.stdout.readline().split()[1:]]
    bystander = subprocess.Popen(
        [
            "tail",
            "-f",
            *Path(os.environ["TMPDIR"]).glob("featgan-*/*/session_latest/logs/raylet.out"),
        ]
    )
    monkeypatch.setattr(tempfile, "tempdir", None)  # it remembers the folder of before
    connect.end_orphans()
    assert _alive(ours) == ours, "a living driver's processes are not orphans"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = _alive(ours)
    assert left, "Ray ended with its driver: nothing to clean up any more"
    started = time.monotonic()
    connect.end_orphans()
    deadline = started + 5
    while _alive(ours) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _alive(ours) == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer: .*RAY_ADDRESS=local"):
        connect.connect()


def test_gpus_that_come_when_runs_wait_are_counted_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connect, "BOOTSTRAP", tmp_path / "none")
    assert connect._gpus_to_come() == 0
    monkeypatch.setattr(connect, "BOOTSTRAP", Path(__file__).parents[3] / "cluster.yaml")
    assert connect._gpus_to_come() == 1, "the AWS cluster starts without a worker"
    (tmp_path / "cpu.yaml").write_text(
        "available_node_types: {a: {resources: {CPU: 8}, max_workers: 2},"
        " b: {resources: {GPU: 8}, max_workers: 0}, c: {resources: {}, max_workers: 3}}"
    )
    monkeypatch.setattr(connect, "BOOTSTRAP", tmp_path / "cpu.yaml")
    assert connect._gpus_to_come() == 0


HERE = connect.Engine(None, 1, 2.0, 0.0)


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, float, float]]:
    """Three machines of unknown kind, one of them there; what is seen at each further look."""
    file = tmp_path / "onpremises.yaml"
    file.write_text("available_node_types: {a: {resources: {}, max_workers: 3}}")
    monkeypatch.setattr(connect, "BOOTSTRAP", file)
    looks: list[tuple[int, float, float]] = []
    monkeypatch.setattr(connect, "_present", lambda: looks.pop(0))
    monkeypatch.setattr(connect.time, "sleep", lambda _: None)
    return looks


def test_a_gpu_that_joins_after_ray_up_is_waited_for(
    joining: list[tuple[int, float, float]],
) -> None:
    told: list[str] = []
    joining += [(2, 8.0, 0.0), (3, 16.0, 1.0)]
    head = connect.Engine("10.0.0.1:6379", 1, 0.0, 0.0)
    assert connect.gpus_per_run(head, None, told.append) == 1
    assert told == ["2 machines have not joined yet: has one a GPU? waiting for them"]
    joining[:] = [(2, 8.0, 0.0), (3, 16.0, 0.0)]
    assert connect.gpus_per_run(head, None, told.append) == 0, "all are there, and none has one"


def test_machines_that_do_not_join_make_no_sweep_run_on_cpus_unasked(
    joining: list[tuple[int, float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = connect.Engine("10.0.0.1:6379", 2, 8.0, 0.0)
    monkeypatch.setattr(connect, "JOIN_SECONDS", 0)
    with pytest.raises(UserError, match=r"but 1 have not joined: .*resources\.gpus_per_run"):
        connect.gpus_per_run(head, None, lambda _: None)
    assert connect.gpus_per_run(head, 0, lambda _: None) == 0
    assert connect.gpus_per_run(HERE, None, lambda _: None) == 0


def test_which_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    current = tmp_path / "ray_current_cluster"
    monkeypatch.setattr(connect, "CURRENT_CLUSTER", current)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert connect.address() is None
    current.write_text("10.0.0.1:6379\n")
    assert connect.address() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert connect.address() == "10.0.0.2:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert connect.address() is None
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="not through Ray Client"):
        connect.address()


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_busy_machine_may_start_ray_late_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    import ray

    folders: list[Path] = []

    def init(**options: object) -> None:
        folders.append(Path(str(options["_temp_dir"])))
        if len(folders) <= failures:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", init)
    if failures == connect.STARTS:
        with pytest.raises(UserError, match=r"did not start on this machine within 30 s, 3 times"):
            connect._start(1, {})
        assert not any(folder.exists() for folder in folders)
    else:
        connect._start(1, {})
        assert [folder.exists() for folder in folders] == [False] * failures + [True]
        connect.shutdown()
    assert len(folders) == min(failures + 1, connect.STARTS)
