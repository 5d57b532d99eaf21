"""`ray up` between hosts, with cluster.yaml and other machines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hosts
import yaml
from polling import await_

RAY = f"{sys.prefix}/bin/ray"


class Cluster:
    """A network of hosts and the `ray up` of its desk."""

    def __init__(self, network: hosts.Network) -> None:
        self.network, self.desk = network, network.desk
        self.head, *self.workers = network.hosts
        self._sweeps: list[subprocess.Popen[bytes]] = []
        self._check_out(self._config())

    def up(self, nodes: int = 3) -> float:
        """Run `ray up`, wait until `nodes` nodes have joined, and return the seconds it took."""
        started = time.monotonic()
        command = f"cd ~/featgan && {RAY} up -y --no-config-cache cluster.yaml"
        self.desk.run(command, timeout=600)
        self.await_nodes(nodes)
        return time.monotonic() - started

    def down(self) -> str:
        """Run `ray down` and return its output."""
        return self.desk.run(f"{RAY} down -y ~/featgan/cluster.yaml", timeout=240)

    def alive(self) -> list[str]:
        """Return the names of the nodes that the cluster counts as alive."""
        show = "import json,ray; ray.init('auto', log_to_driver=False, logging_level=50); "
        show += "print(json.dumps([n['NodeManagerHostname'] for n in ray.nodes() if n['Alive']]))"
        said = self.on_head(f'python -c "{show}"', check=False).strip().splitlines()
        return sorted(json.loads(said[-1])) if said and said[-1].startswith("[") else []

    def await_nodes(self, count: int, seconds: float = 600) -> None:
        """Wait until exactly `count` nodes are alive."""
        await_(lambda: len(self.alive()) == count, f"{count} nodes alive", seconds, pause=2)

    def on_head(self, command: str, check: bool = True, timeout: float = 300) -> str:
        """Run a command on the head as a user logged in there would."""
        return self.head.run(f"cd ~/featgan; . ~/.featgan; {command}", check=check, timeout=timeout)

    def sweep(self, file: str, log: Path) -> subprocess.Popen[bytes]:
        """Start the sweep on the head, the way docs/cluster.md does."""
        command = f"cd ~/featgan; . ~/.featgan; exec python harness/sweep.py {file}"
        self._sweeps.append(self.head.popen(command, log=log))
        return self._sweeps[-1]

    def end_sweeps(self) -> None:
        """End the sweeps that a failed test has left: they would disturb the next one."""
        for pid in self.head.processes("harness/sweep.py") if self.head.is_up else []:
            os.kill(pid, signal.SIGKILL)
        for sweep in self._sweeps:
            sweep.wait()
        self._sweeps.clear()

    def _check_out(self, config: dict[str, Any]) -> None:
        """Put a copy of the repository on the desk, so that edits do not change it."""
        home = self.desk.files / "root/featgan"
        for name in config["file_mounts"].values():
            source = hosts.REPOSITORY / name
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, home / name)
        (home / "cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def _config(self) -> dict[str, Any]:
        """Return cluster.yaml with provider, auth and sizes of these hosts."""
        aws = yaml.safe_load((hosts.REPOSITORY / "cluster.yaml").read_text())
        config = yaml.safe_load((hosts.REPOSITORY / "docs/cluster/onpremises.yaml").read_text())
        config |= {key: aws[key] for key in aws if key.endswith("_start_ray_commands")}
        for node in ("head", "worker"):
            config[f"{node}_setup_commands"] = aws["setup_commands"]
        config["worker_start_ray_commands"][-1] += " --num-cpus=1"  # two share one machine
        config["provider"] |= {
            "head_ip": self.head.address,
            "worker_ips": [worker.address for worker in self.workers],
        }
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "/root/.ssh/id_ed25519"}
        return dict(config)
