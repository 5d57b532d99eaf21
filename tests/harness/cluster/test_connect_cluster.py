"""A Ray on loopback that is not the sweep's own: joined knowingly, or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from processes import MARK, marked

from featgan.errors import UserError
from harness.cluster import connect, preflight
from harness.storage.store import Store

START = """
import sys
import ray

ray.__version__ = sys.argv.pop(1)
from ray.scripts.scripts import main

main()
"""
HOG = """
import sys
import ray

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")


class Held:
    def hello(self):
        return 1


held = ray.remote(num_cpus=2)(Held).remote()
ray.get(held.hello.remote())
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def head(own_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Starts a Ray of two CPUs, of any version by name, as the one of this machine."""
    mark, folder = uuid.uuid4().hex, Path(f"/tmp/fgj{os.getpid()}")
    monkeypatch.setattr(connect, "CURRENT_CLUSTER", folder / "ray_current_cluster")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def start(version: str = ray.__version__, **environment: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", START, version, "start", "--head", f"--port={port}"]
        options = ["--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={folder}"]
        options += ["--include-dashboard=false", "--object-store-memory=100000000"]
        own = {MARK: mark, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        env = os.environ | own | environment
        subprocess.run([*command, *options], env=env, check=True, capture_output=True)
        return f"127.0.0.1:{port}"

    yield start
    connect.shutdown()
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hog() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a driver that holds both CPUs until its input ends."""
    started = []

    def start(where: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOG, where]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(process := subprocess.Popen(command, text=True, **pipes))
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_running_ray_is_named_with_what_is_free(head, hog) -> None:
    where, said = head(), []
    engine = connect.connect(notice=said.append)
    assert engine.address == where
    assert said == [
        f"Ray at {where}: 2 CPUs (2 free), 0 GPUs (0 free); {connect.LOCAL}",
    ]
    assert connect.what_is_missing({"CPU": 1, "GPU": 0}) == ""
    assert connect.what_is_missing({"CPU": 1, "GPU": 1}) == "waiting for a node"


def test_what_others_hold_is_waited_for_and_said(
    head, hog, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, said, waited = head(), [], threading.Event()
    holder = hog(where)
    monkeypatch.setattr(connect, "WAIT_SECONDS", 0.2)
    connect.connect(notice=said.append)

    def notice(text: str, *_: object) -> None:
        said.append(text)
        if len(said) == 4 and not waited.is_set():
            waited.set()
            holder.communicate("")

    connect.await_room({"CPU": 1}, notice)
    assert waited.is_set()
    assert said[1] == (
        f'waiting for 1 CPU (0 of 2 free), held by {sys.executable} -c " '
        f"(process {holder.pid} on 127.0.0.1); {connect.LOCAL}"
    )


def test_a_ray_of_another_version_is_joined_by_no_sweep(
    head, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, said = head("2.49.0"), []
    assert connect.connect(cpus=1, notice=said.append).address is None
    assert len(said) == 1
    assert said[0].startswith(f"the Ray at {where} is another version (Ray: 2.49.0, Python: 3.")
    assert said[0].endswith("): it is not joined")
    connect.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", where)
    with pytest.raises(UserError, match=r"is another version \(Ray: 2\.49\.0, .*RAY_ADDRESS=local"):
        connect.connect()


def test_an_address_that_is_closed_to_the_user_is_not_used(
    own_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def read_text(self) -> str:
            raise PermissionError(13, "denied", "/tmp/ray/ray_current_cluster")

    said: list[str] = []
    monkeypatch.setattr(connect, "CURRENT_CLUSTER", Closed())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert connect.connect(cpus=1, notice=said.append).address is None
    connect.shutdown()
    assert said == [
        "this machine's Ray is another user's (/tmp/ray/ray_current_cluster is closed to this "
        "one): it is not joined"
    ]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"is closed to this one\); RAY_ADDRESS=local"):
        connect.connect()


def test_an_environment_without_this_codes_packages_is_one_line(head, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "pydantic.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pydantic'\")\n"
    )
    where = head(PYTHONPATH=str(tmp_path / "packages"))
    connect.connect()
    store = Store(str(tmp_path / "results"))
    with pytest.raises(UserError) as refused:
        preflight.check_cluster(store, {"CPU": 1, "GPU": 0}, files=[])
    assert "No module named 'pydantic'" in str(refused.value)
    assert "environment" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert where
