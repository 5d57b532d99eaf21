"""`ray up` with cluster.yaml's own commands on three hosts, a job on both workers, `ray down`."""

from __future__ import annotations

import json

import pytest
from polling import await_
from rayup import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

JOB = """
import json, os, socket, time, ray
ray.init("auto", log_to_driver=False, logging_level=50)

@ray.remote(num_cpus=1)
def where():
    import harness.storage.store, torch
    time.sleep(1)
    return socket.gethostname(), torch.__version__, os.environ["RAY_memory_monitor_refresh_ms"]

print(json.dumps(ray.get([where.remote() for _ in range(4)])))
"""


def test_up_run_down(healthy: Cluster) -> None:
    cluster = healthy
    assert cluster.alive() == ["head", "worker1", "worker2"]

    (cluster.head.files / "root/job.py").write_text(JOB)
    landed = json.loads(cluster.on_head("python ~/job.py").splitlines()[-1])
    # The head has no CPU to give away.
    assert {host for host, _, _ in landed} == {"worker1", "worker2"}
    assert {monitor for _, _, monitor in landed} == {"0"}

    listening = cluster.head.run("ss -ltnH").splitlines()
    dashboard = [line.split()[3] for line in listening if line.split()[3].endswith(":8265")]
    assert dashboard == ["127.0.0.1:8265"]

    assert "No nodes remaining" not in cluster.down().splitlines()[0]
    for host in cluster.network.hosts:
        await_(lambda: not host.processes("raylet"), f"{host.name} has stopped", 300)  # noqa: B023
