"""A run whose storage, clock or memory fails at any point: the next attempt ends the same."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import EndpointConnectionError, check_every_write
from small_run import left_by, options, put_shared, small_run

from featgan import checkpoint
from featgan.errors import UserError
from harness.plan.run import Run
from harness.records.run_record import RunRecord
from harness.runs import trial
from harness.runs.trial import run_trial
from harness.storage import retry
from harness.storage.lock import SweepLock
from harness.storage.store import Store

OPTIONS = options(checkpoint_minutes=0, sample_every=2)


def nothing(_: RunRecord) -> None:
    pass


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with what runs share: features, groups, classifier."""
    root = tmp_path_factory.mktemp("shared")
    put_shared(Store(str(root)), count=12, k=2)
    return root


@pytest.fixture
def root(shared: Path, tmp_path: Path) -> Path:
    (tmp_path / "features").symlink_to(shared / "features")
    return tmp_path


@pytest.fixture(scope="module")
def run() -> Run:
    return small_run(k=2, batch_size=4)


@pytest.fixture(scope="module")
def expected(shared: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "features").symlink_to(shared / "features")
    run_trial(run, Store(str(root)), OPTIONS, nothing)
    return left_by(Store(str(root)), run)


@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends "
    "with the same bytes",
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=["full", "closed"])
def test_a_disk_full_or_closed_at_any_write_costs_no_bytes(
    root: Path, run: Run, expected: list[Any], code: int
) -> None:
    def work(store: Store) -> list[Any]:
        run_trial(run, store, OPTIONS, nothing)
        return left_by(store, run)

    def reset() -> None:
        shutil.rmtree(root / run.folder, ignore_errors=True)

    step = 1 if code == errno.ENOSPC else 3
    undisturbed, writes = check_every_write(work, str(root), code, reset, step)
    assert undisturbed == expected
    assert writes > 12


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Replace the store's clock by one that its pauses advance; return a function for the time."""
    now = [0.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return lambda: now[0]


class Unreachable:
    """A file system that cannot be reached until a moment of the clock."""

    def __init__(self, fs: Any, clock: Callable[[], float], until: float, error: Exception) -> None:
        self.fs, self.clock, self.until, self.error = fs, clock, until, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.fs, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.clock() < self.until:
                raise self.error
            return found(*arguments, **named)

        return call


@pytest.mark.guarantee(
    "Faults",
    "Unreachable storage is not treated as empty; after two minutes the run or command ends "
    "with one line",
)
@pytest.mark.parametrize(
    "error",
    [OSError(errno.ESTALE, "Stale file handle"), ConnectionError(), EndpointConnectionError()],
    ids=["mount", "connection", "bucket"],
)
def test_a_storage_that_is_gone_for_a_minute_is_waited_for(
    clock: Callable[[], float], error: Exception
) -> None:
    store = Store(f"memory://outage-{type(error).__name__}")
    store._fs = Unreachable(store._fs, clock, until=60, error=error)
    store.put("a/b", b"1")
    assert 60 <= clock() < 75
    assert store.get("a/b") == b"1"


@pytest.mark.guarantee(
    "Faults",
    "Unreachable storage is not treated as empty; after two minutes the run or command ends "
    "with one line",
)
@pytest.mark.parametrize("root", ["memory://looked-for", "local"])
def test_unreachable_storage_is_not_taken_for_empty(
    clock: Callable[[], float], root: str, tmp_path: Path
) -> None:
    """Otherwise a classifier would be trained again, and with it every run of a sweep."""
    store = Store(str(tmp_path) if root == "local" else root)
    store.put("a/b", b"1")
    assert not store.exists("a")
    assert not store.exists("a/b/c")
    store._fs = Unreachable(
        store._fs, clock, until=30, error=OSError(errno.ESTALE, "Stale file handle")
    )
    assert store.exists("a/b")
    assert clock() >= 30


@pytest.mark.guarantee(
    "Faults",
    "Unreachable storage is not treated as empty; after two minutes the run or command ends "
    "with one line",
)
def test_storage_that_stays_unreachable_is_reported(clock: Callable[[], float]) -> None:
    store = Store("memory://gone")
    store._fs = Unreachable(store._fs, clock, until=10**9, error=ConnectionError("no route"))
    with pytest.raises(ConnectionError, match="no route"):
        store.put("a/b", b"1")
    assert retry.OUTAGE_SECONDS - retry.LONGEST_PAUSE <= clock() <= retry.OUTAGE_SECONDS


def test_a_full_disk_is_reported_at_once(clock: Callable[[], float]) -> None:
    store = Store("memory://full")
    store._fs = Unreachable(store._fs, clock, until=10**9, error=OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"):
        store.put("a/b", b"1")
    assert clock() == 0


@pytest.mark.guarantee("Faults", "A full GPU is reported with batch size and runs per GPU")
def test_a_full_gpu_is_reported_with_what_to_lower(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(trial.RunFolder, "observe", full)
    monkeypatch.setattr(trial.machine, "device", lambda gpu: torch.device("cpu"))
    with pytest.raises(UserError) as caught:
        run_trial(run, Store(str(root)), options(gpus_per_run=0.25), nothing)
    assert "training.batch_size (4)" in str(caught.value)
    assert "than 4 (raise resources.gpus_per_run)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.guarantee("Faults", "A clock that jumps changes nothing")
@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, 10 * 365 * 86400.0], ids=["back", "on"])
def test_a_clock_that_jumps_by_years_changes_nothing(
    root: Path, run: Run, expected: list[Any], monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return real() + (jump if calls[0] % 2 else 0.0)

    monkeypatch.setattr(time, "time", jumping)
    store = Store(str(root))
    with SweepLock(store, "s", beat=0.05):
        with pytest.raises(UserError, match="is being run by"):
            SweepLock(store, "s").__enter__()
        record = run_trial(run, store, OPTIONS, nothing)
    assert record is not None
    assert min(vars(record.seconds).values()) >= 0
    assert left_by(store, run) == expected


def test_a_checkpoint_of_another_version_stays_unused(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(root))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        later = checkpoint.dump({"a": 1})
    store.put(f"{run.folder}/checkpoint.pt", later)
    with pytest.raises(UserError, match="a checkpoint of another version of featgan"):
        run_trial(run, store, OPTIONS, nothing)
    assert store.get(f"{run.folder}/checkpoint.pt") == later


# the thread that writes curves reports its own end as well
@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends "
    "with the same bytes",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("share", [0.001, 0.02, 0.2, 0.5, 0.8, 0.98])
def test_a_real_full_disk_costs_no_bytes_once_there_is_room(
    shared: Path,
    small_disk: Path,
    fill: Callable[..., Path],
    run: Run,
    expected: list[Any],
    share: float,
) -> None:
    """Room runs out at any write: of curves, records, checkpoints, sample grids."""
    (small_disk / "features").symlink_to(shared / "features")
    store, free = Store(str(small_disk)), shutil.disk_usage(small_disk).free
    run_trial(run, store, OPTIONS, nothing)
    needed = free - shutil.disk_usage(small_disk).free
    shutil.rmtree(store.join(run.folder))
    ballast = fill(small_disk, room=int(share * needed))
    with pytest.raises(OSError, match="No space left on device"):
        run_trial(run, store, OPTIONS, nothing)
    assert not list(small_disk.rglob("*.part")), "no litter"
    for path in small_disk.rglob("run.json"):
        assert json.loads(path.read_text())["status"] == "running"
    ballast.unlink()
    run_trial(run, store, OPTIONS, nothing)
    assert left_by(store, run) == expected


@pytest.mark.guarantee(
    "Faults",
    "A full or closed disk at any write costs nothing: with room again, the same command ends "
    "with the same bytes",
)
def test_a_full_disk_for_copies_of_a_bucket_leaves_nothing(
    small_disk: Path, fill: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    store = Store("memory://copied")
    store.put("pack", bytes(2**16))
    ballast = fill(small_disk, room=2**15)
    with pytest.raises(OSError, match="No space left on device"):
        store.local("pack")
    ballast.unlink()
    assert [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size] == []
    assert store.local("pack").read_bytes() == bytes(2**16)
