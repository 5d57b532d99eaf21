"""Commands in their own processes, found by a mark in their environment: no other is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).parents[2] / "harness"
MARK = "FEATGAN_TEST_MARK"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and the first as an IPv6 address, as /proc/net writes them."""


class Commands:
    """The harness's commands in their own processes, each with its own Ray."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, name: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start `harness/<name>.py`; its output is captured."""
        environment = os.environ | {"RAY_ADDRESS": "local"} | options.pop("env", {})
        command = [sys.executable, str(HARNESS / f"{name}.py"), *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(command, text=True, env=environment, **streams)
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], seconds: float = 500) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of a command that ends."""
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err

    def run(self, name: str, *arguments: object, **options: Any) -> tuple[int, str, str]:
        """Start a command and wait for its end."""
        return self.finish(self.start(name, *arguments, **options))

    def end(self) -> None:
        """End the commands that still run, so that a failed test leaves none."""
        for process in self.started:
            with process:  # closes its output
                process.kill()


def marked(mark: str) -> list[int]:
    """Living processes that were started with this mark, and all that they started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def listening(pids: list[int]) -> set[str]:
    """The addresses that processes listen on, as the kernel writes them."""
    sockets = set()
    for pid in pids:
        try:
            links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}
