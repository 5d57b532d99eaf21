"""`ray job submit` from outside, to a job server on loopback, the way docs/cluster.md does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from polling import await_
from processes import MARK, marked

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
SWEEP = """
name: submitted
results: {results}
data:
  digits: {{source: builtin, set: digits, count: 90}}
image_size: 32
features: {{weights: random, input_size: 32}}
gan: {{width: 8, latent: 16}}
training: {{stage_epochs: 2, evaluate_every: 1, batch_size: 16}}
score: {{classifier: trained, trained_on: [digits], count: 64, splits: 2}}
grid: {{mode: [conventional], seed: [0]}}
"""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

Submit = Callable[[str], subprocess.CompletedProcess[str]]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def submit(packages: Path, tmp_path: Path) -> Iterator[Submit]:
    """Submits a sweep with given `results` from a copy of the code, and waits for its end."""
    mark, folder = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="fg", dir="/tmp"))
    jobs, own = _free_port(), {MARK: mark, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | own | {"PYTHONPATH": path}
    environment.pop("RAY_ADDRESS", None)
    command = [RAY, "start", "--head", f"--port={_free_port()}", f"--temp-dir={folder}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--object-store-memory=200000000"]
    command += ["--include-dashboard=true", f"--dashboard-port={jobs}", "--disable-usage-stats"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    await_(lambda: _accepts(jobs), "the job server answers")
    for package in ("featgan", "harness"):
        shutil.copytree(ROOT / package, tmp_path / "checkout" / package)

    def submitted(results: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "checkout" / "s.yaml").write_text(SWEEP.format(results=results))
        command = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{jobs}"]
        command += ["--working-dir", ".", "--", sys.executable, "harness/sweep.py", "s.yaml"]
        return subprocess.run(
            command,
            cwd=tmp_path / "checkout",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    yield submitted
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_sweep_ends_with_results_that_stay(submit: Submit, tmp_path: Path) -> None:
    refused = submit("results")
    assert refused.returncode == 1
    assert "s.yaml: results: results is relative, and a job's copy" in refused.stdout
    assert "Traceback" not in refused.stdout
    job = submit(str(tmp_path / "kept"))
    assert job.returncode == 0, job.stdout
    assert "Ray at 127.0.0.1:" in job.stdout
    assert "held by" not in job.stdout, "the job server is no other job"
    (record,) = (tmp_path / "kept" / "submitted" / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "finished"
    assert (tmp_path / "kept" / "submitted" / "report.html").exists()
