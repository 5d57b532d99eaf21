"""The quiet instance on this machine: loopback only, and nothing left behind."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from polling import await_
from processes import LOOPBACK, MARK, listening, marked

from featgan.errors import UserError
from harness.cluster import connect
from harness.display import Screen

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DRIVER = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.default_int_handler)
from harness.cluster import connect
engine = connect.connect(cpus=1)
import ray

@ray.remote
class Busy:
    def hello(self):
        return os.getpid()

@ray.remote(max_retries=1)
def die_once(before):
    if not os.path.exists(before):
        open(before, "w").close()
        os._exit(1)

ray.get(die_once.remote(os.environ["TMPDIR"] + f"/died-{os.getpid()}"))
actor = Busy.remote()
ray.get(actor.hello.remote())
assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler, "Ray's ends without a word"
print("started", engine.address, engine.nodes, flush=True)
sys.stdin.readline()
connect.shutdown()
"""
PATIENCE = 120.0
"""Seconds after which something hangs."""


class Driver:
    """A process that starts Ray and ends at a line on its input."""

    def __init__(self, temporary: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"RAY_ADDRESS": "local", "TMPDIR": str(temporary), MARK: self.mark},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started None 1\n"

    def processes(self) -> list[int]:
        """Those of its Ray, and its own."""
        return marked(self.mark)

    def await_end(self) -> None:
        """Wait until it and its Ray have ended."""
        await_(lambda: not self.processes(), "all processes have ended", PATIENCE)


@pytest.fixture
def start(own_ray: None) -> Iterator[type[Driver]]:
    """Starts drivers with a temporary folder of their own: a socket's path is short."""
    folder = Path(f"/tmp/fg{os.getpid()}")
    folder.mkdir()
    drivers = []

    def started() -> Driver:
        drivers.append(Driver(folder))
        return drivers[-1]

    yield started
    for driver in drivers:
        driver.process.kill()
        driver.process.communicate()
        for pid in driver.processes():
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def _folders() -> list[Path]:
    return sorted(Path(f"/tmp/fg{os.getpid()}").glob("featgan-*"))


@pytest.mark.guarantee("Exposure", "On one machine only loopback is listened on")
def test_it_listens_on_loopback_only_and_ends_with_its_files(start) -> None:
    driver = start()
    assert len(driver.processes()) > 5
    addresses = listening(driver.processes())
    assert addresses, "Ray listens: the test must see it"
    assert addresses <= LOOPBACK
    assert len(_folders()) == 1
    out, err = driver.process.communicate("end\n", timeout=PATIENCE)
    assert (driver.process.returncode, out, err) == (0, "", "")
    assert _folders() == []
    driver.await_end()


def test_a_killed_driver_leaves_no_process_and_no_obstacle(start) -> None:
    killed, alive = start(), start()
    killed.process.kill()
    killed.process.wait()
    third = start()
    for driver in (alive, third):
        driver.process.communicate("end\n", timeout=PATIENCE)
        assert driver.process.returncode == 0
    killed.await_end()
    assert len(_folders()) == 1, "only files of the killed one are left"


def test_a_machine_too_busy_to_start_ray_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def init(*, _temp_dir: str, **_: object) -> None:
        folders.append(Path(_temp_dir))
        raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(ray, "init", init)
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(UserError, match="did not start on this machine within 30 s"):
        connect.connect(1)
    assert signal.getsignal(signal.SIGHUP) == before
    assert folders[0].exists()
    connect.shutdown()
    assert not folders[0].exists()


def test_a_full_disk_of_ray_is_one_line(
    own_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_local_fs_capacity_threshold", "0.0001")
    monkeypatch.setattr(connect, "OBJECT_STORE_BYTES", 10**8)
    folders, kept = list[str](), list[ray.ObjectRef]()

    def fill() -> None:
        with connect.session(Screen(io.StringIO())):
            folders.append(ray._private.worker._global_node.get_session_dir_path())
            for _ in range(4):
                kept.append(ray.put(np.zeros(4 * 10**7, np.uint8)))

    with pytest.raises(UserError) as refused:
        fill()
    assert f"may not write to the disk of {folders[0]}: " in str(refused.value)
    assert re.search(r"[\d.]+ GB are free there, and [\d.]+ GB must stay free", str(refused.value))
    assert not ray.is_initialized()


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_run_ships_no_checkout(own_ray: None, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(b"x")
    code = """
from harness.cluster import connect
connect.connect(cpus=1)
import ray
print(ray.get_runtime_context().runtime_env.get("working_dir"))
connect.shutdown()
"""
    command = ["uv", "run", "--offline", "--no-project", "--python", sys.executable, "python", "-c"]
    run = subprocess.run(
        [*command, code],
        cwd=tmp_path,
        env=os.environ | {"RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (run.returncode, run.stdout) == (0, "None\n"), run.stderr
