"""Fixtures: three hosts, and a Ray cluster made on them by `ray up`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hosts
from outcome import outcome
from rayup import Cluster
from tinysweep import MINUTES, Sweep

INSTALLED = ["ray[default]", "s3fs", "boto3"]
"""Packages that cluster.yaml installs in addition to this repository."""


@pytest.fixture(scope="session")
def packages() -> Path:
    """Download, once for a machine, what cluster.yaml installs and this environment lacks."""
    if reason := hosts.missing():
        pytest.skip(reason)
    version = hashlib.sha256((hosts.REPOSITORY / "constraints.txt").read_bytes()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"featgan-cluster-packages-{os.getuid()}-{version}"
    if (folder / "complete").exists():
        return folder
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    constraints = ["--constraint", str(hosts.REPOSITORY / "constraints.txt")]
    report = subprocess.run(
        [*pip, "--dry-run", "--report", "-", *constraints, *INSTALLED],
        check=True,
        capture_output=True,
        text=True,
    )
    wanted = [
        f"{item['metadata']['name']}=={item['metadata']['version']}"
        for item in json.loads(report.stdout)["install"]
    ]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if wanted:
        subprocess.run([*pip, "--no-deps", "--target", str(folder), *wanted], check=True)
    (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[hosts.Network]:
    folder = tmp_path_factory.mktemp("hosts")
    network = hosts.Network(folder, 3, keep=(str(packages),))
    try:
        network.start()
        yield network
    finally:
        network.stop()
        for host in [*network.hosts, network.desk]:
            shutil.rmtree(host.files, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(network: hosts.Network) -> Cluster:
    """Return a running Ray cluster of three nodes on the hosts."""
    cluster = Cluster(network)
    cluster.up()
    yield cluster
    cluster.end_sweeps()


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster) -> dict[str, Any]:
    """Return the outcome of the same sweep on one machine, the desk, without disturbance."""
    sweep = Sweep(cluster, "undisturbed")
    cluster.desk.run(
        "cd ~/featgan; RAY_ADDRESS=local PYTHONPATH=~/featgan",
        f"{sys.executable} harness/sweep.py ~/undisturbed.yaml",
        timeout=30 * MINUTES,
    )
    found = outcome(sweep.folder)
    assert len([name for name in found if name.startswith("digits-")]) == 6
    return found


@pytest.fixture
def healthy(cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster with all hosts and nodes running, restarted where a test killed them."""
    for host in cluster.network.hosts:
        if not host.is_up:
            cluster.network.restart(host)
    if cluster.alive() != ["head", "worker1", "worker2"]:
        cluster.up()
    yield cluster
    cluster.end_sweeps()
