"""The whole command with its processes killed at random: run again, it ends with the same tables.

The driver, Ray and its actors are found by a mark in their environment, so no other process on the
machine is touched.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from outcome import outcome, records, rescored
from polling import await_
from processes import LOOPBACK, MARK, listening, marked

ROOT = Path(__file__).parents[2]
# Out of CI: 50 kills take about twenty minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

PATIENCE = 900
SWEEP = """
name: killed
results: {results}
data:
  digits: {{source: builtin, set: digits, count: 60}}
image_size: 32
features: {{weights: random, input_size: 32}}
gan: {{width: 2, latent: 4}}
training: {{stage_epochs: 30, evaluate_every: 2, batch_size: 8, learning_rate: 0.01}}
score: {{classifier: trained, trained_on: [digits], count: 16, splits: 2}}
grid: {{mode: [descending, conventional], seed: [0, 1]}}
resources: {{checkpoint_minutes: 0}}
"""


class Command:
    """A running command with all processes that descend from it."""

    def __init__(self, file: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "harness" / "sweep.py"), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_ADDRESS": "local", MARK: self.mark},
        )

    def pids(self) -> list[int]:
        """Return its living processes."""
        return marked(self.mark)

    def trials(self) -> list[int]:
        """Return the processes that train."""
        return [pid for pid in self.pids() if b"ImplicitFunc" in _command_line(pid)]

    def end(self) -> tuple[int, str]:
        """Return its exit code and output; a hang is a failure."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out

    def clear(self) -> None:
        """Kill the processes that are left."""
        for pid in self.pids():
            _kill(pid)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def write(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "killed.yaml"
    file.write_text(SWEEP.format(results=folder / "results"))
    return file


def left_by(folder: Path) -> dict[str, Any]:
    """Return all of the sweep that must not depend on kills."""
    return outcome(folder / "results" / "killed")


@pytest.fixture(scope="module")
def undisturbed(own_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    command = Command(write(folder))
    try:
        code, said = command.end()
    finally:
        command.clear()
    assert code == 0, said
    return left_by(folder)


@pytest.fixture
def commands(own_ray: None) -> Iterator[list[Command]]:
    """Commands started by a test; they end with it."""
    begun: list[Command] = []
    yield begun
    for command in begun:
        command.clear()


def await_training(command: Command, folder: Path) -> None:
    """Wait until a run has three evaluations and its process is known."""

    def is_training() -> bool:
        runs = records(folder / "results" / "killed").values()
        return bool(command.trials()) and any(len(run["evaluations"]) > 2 for run in runs)

    await_(is_training, "a run has three evaluations", PATIENCE, process=command.process)


@pytest.mark.guarantee(
    "Faults",
    "A killed run is tried again (`resources.max_failures`); `failures.txt` has the reason",
)
def test_a_killed_run_is_retried_and_only_loopback_listens(
    tmp_path: Path, undisturbed: dict[str, Any], commands: list[Command]
) -> None:
    """Kill it as the kernel does when memory is short; look at the sockets while it runs."""
    command = Command(write(tmp_path))
    commands.append(command)
    await_training(command, tmp_path)
    addresses = listening(command.pids())
    assert addresses, "Ray listens: the test must see it"
    assert addresses <= LOOPBACK
    _kill(command.trials()[0])
    code, said = command.end()
    assert code == 0, said
    assert "trying again" in said
    assert "Traceback" not in said
    reasons = [p.read_text() for p in tmp_path.glob("results/killed/runs/*/failures.txt")]
    assert len(reasons) >= 1
    assert all("where memory is short, lower resources.max_concurrent" in r for r in reasons)
    assert left_by(tmp_path) == undisturbed


@pytest.mark.guarantee(
    "Faults", "SIGKILL during re-scoring: the same command measures the same, and nothing twice"
)
def test_a_rescore_that_is_killed_continues_with_the_same_numbers(
    tmp_path: Path, undisturbed: dict[str, Any], commands: list[Command]
) -> None:
    command, sweep = Command(write(tmp_path)), tmp_path / "results" / "killed"
    commands.append(command)
    await_(lambda: rescored(sweep), "a run is re-scored", PATIENCE, process=command.process)
    command.clear()
    done = {path: path.read_bytes() for path in sweep.glob("runs/*/rescored.json")}
    assert 1 <= len(done) < 4
    command = Command(write(tmp_path))
    commands.append(command)
    code, said = command.end()
    assert code == 0, said
    assert left_by(tmp_path) == undisturbed
    assert len(undisturbed["rescored"]) == 4
    assert {path: path.read_bytes() for path in done} == done


def await_trial(command: Command) -> None:
    """Wait until a run has started, or the command has ended."""

    def is_over() -> bool:
        return command.process.poll() is not None or bool(command.trials())

    await_(is_over, "a run has started", PATIENCE)


def kill_at_random(
    folder: Path, kills: int, chance: random.Random, commands: list[Command]
) -> None:
    """Run the sweep and kill any of its processes, `kills` times; then let it end."""
    fell: dict[str, int] = {"before runs": 0, "during runs": 0}
    while kills:
        command = Command(write(folder))
        commands.append(command)
        while kills and command.process.poll() is None:
            if chance.random() < 0.5:  # else most kills would come before the first run
                await_trial(command)
            time.sleep(chance.uniform(0.5, chance.choice((5, 15))))
            if command.process.poll() is None and (pids := command.pids()):
                # the driver is one of a dozen processes, and its death has the most effect
                victims = [*pids, *[command.process.pid] * (len(pids) // 3)]
                fell["during runs" if command.trials() else "before runs"] += 1
                _kill(chance.choice(victims))
                kills -= 1
        if not kills or command.process.poll() == 0:
            command.process.communicate(timeout=PATIENCE)
            if kills:  # it ended before it could be killed: another sweep
                subprocess.run(["rm", "-r", str(folder / "results")], check=True)
    print("kills:", fell)
    assert fell["during runs"] >= sum(fell.values()) // 4, fell
    for _ in range(3):  # runs that failed too often are tried again by the next command
        command = Command(write(folder))
        commands.append(command)
        code, said = command.end()
        if code == 0:
            return
    raise AssertionError(said)


@pytest.mark.guarantee(
    "Faults",
    "SIGKILL of any process at any moment: the same command ends with the undisturbed tables "
    "and generators",
)
@pytest.mark.parametrize("kills", [3, 50])
def test_random_kills_of_any_process_leave_the_same_tables(
    tmp_path: Path, undisturbed: dict[str, Any], kills: int, commands: list[Command]
) -> None:
    kill_at_random(tmp_path, kills, random.Random(kills), commands)
    assert left_by(tmp_path) == undisturbed
