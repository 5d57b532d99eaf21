"""Exit codes of commands, and the one line that they print."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import EndpointConnectionError

from featgan.errors import UserError, first_line
from harness import cli, features
from harness.cli import exit_code
from harness.display import Screen
from harness.storage import lock
from harness.storage.lock import SweepLock
from harness.storage.store import Store


def fails(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("data.a: no\nimages in s3://KEY:SECRET@b/c"), 2, "data.a: no images in s3://"),
        (KeyboardInterrupt(), 1, f"stopped at once; to continue: {sys.orig_argv[0]} "),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 1, "No space left: /x/y: fix this"),
    ],
)
def test_what_went_wrong_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(fails(error)) == code
    err = capsys.readouterr().err
    assert err.startswith(f"featgan: {line}")
    assert err.count("\n") == 1
    assert "SECRET" not in err


@pytest.mark.guarantee(
    "Faults",
    "Unreachable storage is not treated as empty; after two minutes the run or command ends "
    "with one line",
)
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ESTALE, "stale", "/x/y"), "stale: /x/y: fix"),
        (ConnectionError("no route"), "ConnectionError: no route: the storage of `results`: fix"),
        (
            EndpointConnectionError("s3://K:SECRET@b is unreachable"),
            "EndpointConnectionError: s3://***@b is unreachable: the storage of `results`: fix",
        ),
    ],
    ids=["mount", "connection", "bucket"],
)
def test_an_unreachable_storage_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(fails(error)) == 1
    assert capsys.readouterr().err == f"featgan: {line} this, and run the same command again\n"


def test_an_unexpected_error_keeps_its_traceback_but_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(fails(ValueError("odd: s3://KEY:SECRET@b"))) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("ValueError: odd: s3://***@b\n")
    assert "SECRET" not in err
    assert exit_code(lambda: 0) == 0


@pytest.mark.guarantee("Sweep files", "A `results` that cannot hold files is refused at once")
@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("/dev/null", "Not a directory"),
        ("/dev/null/below", "Not a directory"),
        ("/proc/x", "No such file or directory"),
        (f"/tmp/{'a' * 300}", "File name too long"),
    ],
    ids=["a file", "below a file", "proc", "long"],
)
def test_a_place_that_can_keep_no_files_is_named(root: str, reason: str) -> None:
    message = rf"^results: {root}: no files can be written there .*{reason}"
    lock = cli.sweep_lock(Store(root), "s", Screen())
    with pytest.raises(UserError, match=message) as caught, lock:
        pytest.fail("went on")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE], ids=["closed", "away"])
def test_an_unusable_place_is_not_called_a_mistake_of_the_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Store, "create", fail)
    with pytest.raises(OSError, match=os.strerror(code)):  # noqa: SIM117
        with cli.sweep_lock(Store(str(tmp_path)), "s", Screen()):
            pytest.fail("went on")


LOSES = """
import sys, time
from harness.cli import sweep_lock
from harness.display import Screen
from harness.storage import lock
from harness.storage.store import Store

lock.SweepLock.__init__.__kwdefaults__["beat"] = 0.05
with sweep_lock(Store(sys.argv[1]), "s", Screen()):
    print("held", flush=True)
    try:
        while True:
            time.sleep(1)
    finally:
        print("ended in order")
"""


def test_a_command_that_lost_its_sweep_ends_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOSES, str(tmp_path)]
    heir = SweepLock(Store(str(tmp_path)), "s")
    heir._me = lock.Holder()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as loser:
        assert loser.stdout is not None
        assert loser.stdout.readline() == "held\n"
        while loser.poll() is None:  # a heartbeat under way may overwrite the heir's lease
            heir.store.put("s/lock.json", heir._lease())
            time.sleep(0.1)
        out, err = loser.communicate()
    assert (loser.returncode, out) == (2, "")
    assert err.startswith(f"featgan: sweep s was taken over by process {os.getpid()} of ")
    assert err.endswith("; this driver ends now, and its runs end with it\n")


def test_features_knows_the_users_functions_and_the_small_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "data: {digits: {source: builtin, set: digits}}\nimage_size: 32\n"
        "grid: {mode: [descending], seed: [0]}\nsmall: {max_rejected: 0.5}\n"
    )
    seen = []

    def count_and_group(sweep: Any, _: Screen) -> int:
        seen.append((sweep.max_rejected, os.getcwd() in sys.path))
        return 0

    monkeypatch.setattr(features, "count_and_group", count_and_group)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    assert features.main([str(tmp_path / "mine.yaml"), "--scale", "small"]) == 0
    assert seen == [(0.5, True)]


FILE = """
data: {a: {source: folder, path: /caf\xe9}}
image_size: 32
grid: {mode: [descending], seed: [0]}
score: {classifier: inception}
"""


def dry_run(folder: Path, out: Any, encoding: str = "utf-8", **options: Any) -> Any:
    (folder / "s.yaml").write_text(FILE)
    command = [sys.executable, "-m", "harness.sweep", str(folder / "s.yaml"), "--dry-run"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(command, stdout=out, stderr=subprocess.PIPE, env=environment, **options)


def test_a_closed_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = dry_run(tmp_path, closed)
    assert (done.returncode, done.stderr) == (1, b"")


def test_characters_that_the_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    done = dry_run(tmp_path, subprocess.PIPE, "ascii")
    assert b"/caf\\xe9" in done.stdout
    line = b"featgan: there is no file or folder /caf\\xe9\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_what_is_printed_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "s weep.py").write_text("from harness.cli import command_line; print(command_line())")
    run = partial(subprocess.run, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    environment = {"env": os.environ | {"PYTHONPATH": os.getcwd()}}
    first = run([sys.executable, "s weep.py", "--scale", "small"], **environment).stdout
    assert shlex.split(first) == [sys.executable, "s weep.py", "--scale", "small"]
    assert run(["bash", "-c", first], **environment).stdout == first


def test_matplotlib_says_nothing_of_its_caches() -> None:
    code = "from harness.cli import exit_code\n"
    code += "exit_code(lambda: len(__import__('matplotlib').get_cachedir()) * 0)"
    environment = os.environ | {"MPLCONFIGDIR": "/dev/null/x", "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_a_reason_has_no_colours_of_pytorch(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Path("/"), protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="\x1b") as refused:
        torch.load(tmp_path / "a.pth", weights_only=True)
    assert "\x1b" not in first_line(refused.value)
