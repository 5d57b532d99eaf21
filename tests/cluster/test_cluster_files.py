"""The cluster files against Ray's schema and defaults, without hosts or an account."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.plan.load import load

ROOT = Path(__file__).parents[2]
AWS, ON_PREMISES = ROOT / "cluster.yaml", ROOT / "docs" / "cluster" / "onpremises.yaml"
SKY = ROOT / "skypilot.yaml"
COMMON = (
    "file_mounts",
    "rsync_exclude",
    "setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def _prepared(path: Path) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    return dict(config)


def test_aws_has_a_cpu_head_and_gpu_workers_that_come_and_go() -> None:
    config = _prepared(AWS)
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["idle_timeout_minutes"] == 10
    assert config["provider"]["cache_stopped_nodes"] is False
    for node in (head, gpu):
        disk = node["node_config"]["BlockDeviceMappings"][0]["Ebs"]
        assert disk["DeleteOnTermination"] is True


def test_ray_rejects_a_wrong_type_in_it() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(AWS.read_text())
    config["max_workers"] = "eight"
    with pytest.raises(Exception, match="eight"):
        validate_config(prepare_config(config))


def test_the_dashboard_is_reached_through_ssh_alone() -> None:
    config = yaml.safe_load(AWS.read_text())
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "security_group" not in config["provider"]


def test_every_node_installs_this_repository_with_constraints() -> None:
    install = " ".join(_prepared(AWS)["setup_commands"])
    assert "cd ~/featgan && " in install
    assert "--constraint constraints.txt --editable '.[inception]'" in install
    assert (ROOT / "constraints.txt").exists()


def test_on_premises_runs_the_same_commands_and_counts_its_head() -> None:
    aws, here = yaml.safe_load(AWS.read_text()), yaml.safe_load(ON_PREMISES.read_text())
    assert {key: here[key] for key in COMMON} == {key: aws[key] for key in COMMON}
    assert here["head_setup_commands"] == here["worker_setup_commands"] == aws["setup_commands"]
    machines = 1 + len(here["provider"]["worker_ips"])
    prepared = _prepared(ON_PREMISES)["available_node_types"]["local.cluster.node"]
    assert (prepared["min_workers"], prepared["max_workers"]) == (machines, machines)


def test_the_cluster_file_uses_the_roles_of_the_access_file() -> None:
    class Loader(yaml.SafeLoader):
        """Read CloudFormation's short tags as plain values."""

    Loader.add_multi_constructor("!", lambda loader, tag, node: node.value)
    access = yaml.load((ROOT / "docs/cluster/aws-access.yaml").read_text(), Loader)
    made = {
        resource["Properties"]["InstanceProfileName"]
        for resource in access["Resources"].values()
        if resource["Type"] == "AWS::IAM::InstanceProfile"
    }
    types = yaml.safe_load(AWS.read_text())["available_node_types"].values()
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in types} == made


def test_a_new_account_may_ask_for_spot_machines() -> None:
    text = (ROOT / "docs/cluster/aws-access.yaml").read_text()
    allowed = text.partition("Action: iam:CreateServiceLinkedRole")[2]
    assert 'StringEquals: {"iam:AWSServiceName": spot.amazonaws.com}' in allowed


def test_the_sweep_of_the_recipe_reads_and_writes_the_bucket(tmp_path: Path) -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    (command,) = [line for line in text.splitlines() if line.startswith("(sed ")]
    (tmp_path / "sweeps").mkdir()
    shutil.copy(ROOT / "sweeps/paper.yaml", tmp_path / "sweeps")
    subprocess.run(["bash", "-c", f"BUCKET=mine; {command}"], check=True, cwd=tmp_path)
    sweep = load(tmp_path / "sweeps/paper-aws.yaml")
    assert (sweep.results, sweep.resources.max_failures) == ("s3://mine", 20)
    sources = [*sweep.data["apple"].sources.values(), sweep.data["celeba"]]
    assert [source.path for source in sources] == [
        "s3://mine/data/apple/imagenet",
        "s3://mine/data/apple/search",
        "s3://mine/data/celeba",
    ]


def test_a_slurm_job_whose_ray_has_ended_does_not_wait_for_it(tmp_path: Path) -> None:
    for name, does in (("srun", "exit 1"), ("ray", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    job = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_NNODES": "1"}
    run = subprocess.run(
        ["bash", str(ROOT / "docs/cluster/slurm.sh"), "a.yaml"],
        cwd=tmp_path,
        env=os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert "ray start has ended on" in run.stderr


def test_the_other_ways_start_the_same_sweep() -> None:
    slurm = ROOT / "docs/cluster/slurm.sh"
    subprocess.run(["bash", "-n", str(slurm)], check=True)
    job = yaml.safe_load((ROOT / "docs/cluster/kuberay.yaml").read_text())["spec"]
    assert job["entrypoint"] == "python harness/sweep.py sweeps/paper.yaml"
    assert job["rayClusterSpec"]["rayVersion"] == metadata.version("ray")
    assert job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    quiet = ("RAY_memory_monitor_refresh_ms=0", "RAY_USAGE_STATS_ENABLED=0")
    for text in (slurm.read_text(), (ROOT / "docs/cluster/Dockerfile").read_text()):
        assert all(setting in text for setting in quiet)


def test_skypilot_reads_its_file() -> None:
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed")
    task = sky.Task.from_yaml(str(SKY))
    assert task.num_nodes == 2
    assert all(resources.use_spot for resources in task.resources)


def test_skypilot_installs_the_same_and_leaves_its_own_ray_alone() -> None:
    task = yaml.safe_load(SKY.read_text())
    commands = yaml.safe_load(AWS.read_text())["setup_commands"]
    for part in (
        "--constraint constraints.txt --editable '.[inception]'",
        "'ray[default]' s3fs boto3",
    ):
        assert part in commands[-1]
        assert part in task["setup"]
    assert "ray stop" not in task["run"]
    assert "RAY_memory_monitor_refresh_ms=0" in task["run"]
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_skypilot_machine_starts_or_joins_the_heads_ray(tmp_path: Path, rank: int) -> None:
    ray = """#!/bin/sh
echo "$RAY_ADDRESS $@" >> ray.log
[ "$1" = status ] || touch started
[ -f started ] && echo " 1 node_a
 1 node_b"
"""
    python = '#!/bin/sh\necho "$@" >> python.log\n'
    for name, text in (("ray", ray), ("python", python)):
        file = tmp_path / "venv" / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    environment = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    environment |= {"SKYPILOT_NODE_RANK": str(rank), "SWEEP": "a.yaml", "HOME": str(tmp_path)}
    script = yaml.safe_load(SKY.read_text())["run"].replace("ulimit -n 65536", "")
    subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=os.environ | environment, check=True, timeout=60
    )
    (first, *others) = (tmp_path / "ray.log").read_text().splitlines()
    if rank:
        assert (first, others) == ("10.0.0.1:6379 start --address=10.0.0.1:6379", [])
        return
    assert others[0].startswith("10.0.0.1:6379 start --head --port=6379")
    assert (tmp_path / "python.log").read_text() == "harness/sweep.py a.yaml\n"
