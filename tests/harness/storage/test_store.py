"""The store on a local disk and in memory, which stands for the object stores."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest

from featgan.errors import UserError
from harness.storage.lock import SweepLock
from harness.storage.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "local":
        return Store(str(tmp_path / "results"))
    return Store(f"memory://{uuid.uuid4().hex}/results")


def test_a_file_is_read_back_replaced_and_deleted(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("runs/a/run.json")
    store.put("runs/a/run.json", b"one")
    store.put("runs/a/run.json", b"two")
    assert store.get("runs/a/run.json") == b"two"
    assert store.exists("runs/a/run.json")
    store.delete("runs/a/run.json")
    store.delete("runs/a/run.json")
    assert not store.exists("runs/a/run.json")


def test_many_files_are_read_in_the_order_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.storage.store.AT_ONCE", 2)
    keys = [f"runs/[{number}]*/run.json" for number in range(5)]
    for key in keys[1:]:
        store.put(key, key.encode())
    assert [*store.get_all(keys)] == [(keys[0], None), *((key, key.encode()) for key in keys[1:])]
    assert [*store.get_all([])] == []


def test_what_cannot_be_read_is_not_taken_for_missing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        dict(Store(str(tmp_path)).get_all(["folder"]))


def test_only_the_first_creates(store: Store) -> None:
    assert store.create("lock/1", b"first")
    assert not store.create("lock/1", b"second")
    assert store.create("lock/1", b"first"), "the same put, sent again"
    assert store.get("lock/1") == b"first"
    assert store.list() == ["lock/1"]


def test_a_file_that_is_gone_at_once_was_created_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(*_: object) -> None:
        raise FileExistsError

    monkeypatch.setattr(os, "link", exists)
    assert not Store(str(tmp_path)).create("s/lock.json", b"mine")


def test_once_makes_a_file_that_is_missing_and_no_other(store: Store) -> None:
    assert store.once("classifier/0a1b", lambda: b"weights") == "classifier/0a1b"
    assert store.once("classifier/0a1b", lambda: pytest.fail("made again")) == "classifier/0a1b"
    assert store.get("classifier/0a1b") == b"weights"


def test_list_is_recursive_sorted_and_bound_to_the_folder(store: Store) -> None:
    for key in ("s/runs/b/run.json", "s/runs/a/run.json", "s/runs/a/samples/last.png", "s2/x"):
        store.put(key, b"")
    assert store.list("s") == [
        "s/runs/a/run.json",
        "s/runs/a/samples/last.png",
        "s/runs/b/run.json",
    ]
    assert store.list("s/runs/b") == ["s/runs/b/run.json"]
    assert store.list("nothing/here") == []
    assert store.list() == [*store.list("s"), "s2/x"]


def test_local_gives_the_latest_version_of_a_file(store: Store) -> None:
    store.put("classifier/a.safetensors", b"weights")
    assert store.local("classifier/a.safetensors").read_bytes() == b"weights"
    store.put("classifier/a.safetensors", b"WEIGHTS")  # of equal size
    assert store.local("classifier/a.safetensors").read_bytes() == b"WEIGHTS"
    with pytest.raises(FileNotFoundError):
        store.local("classifier/b.safetensors")


def test_local_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(f"memory://{uuid.uuid4().hex}")
    store.put("pack/0.npy", b"images")
    first = store.local("pack/0.npy")
    monkeypatch.setattr(store._fs, "get_file", lambda *_: pytest.fail("downloaded again"))
    assert store.local("pack/0.npy") == first


def test_pickling_keeps_the_root(store: Store) -> None:
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


def test_a_relative_root_stays_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    monkeypatch.chdir("/")
    store.put("a", b"1")
    assert (tmp_path / "results" / "a").read_bytes() == b"1"
    assert store.join("a") == str(tmp_path / "results" / "a")
    assert Store(f"file://{tmp_path}/results").get("a") == b"1"


@pytest.mark.guarantee("Names", "A key or a file of a bucket cannot leave its root")
@pytest.mark.parametrize("key", ["../a", "/a", "a//b", ".a", "a/.b/c", ""])
def test_a_key_cannot_leave_the_root_or_hide(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        store.put(key, b"")


def test_a_full_disk_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.put("run.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*run\.json'"):
        store.put("run.json", b"new")
    assert (tmp_path / "run.json").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_temporary_files_are_hidden_and_go_under_the_lock(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("s/runs/a/run.json", b"{}")
    left = f"s/runs/a/.checkpoint.pt.{'0' * 12}.part"
    others = [f"s/.lock.json.{'0' * 12}.part", f"features/.a.{'0' * 12}.part"]
    for name in (left, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    assert store.list() == ["s/runs/a/run.json"]
    with SweepLock(store, "s"):
        assert os.listdir(tmp_path / "s/runs/a") == ["run.json"]
        assert all((tmp_path / name).exists() for name in others), "may be written just now"
    assert store.list() == ["s/runs/a/run.json"]


def test_an_unreadable_folder_does_not_look_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(store._fs, "ls", stale)
    monkeypatch.setattr("harness.storage.retry.OUTAGE_SECONDS", 0)
    with pytest.raises(OSError, match="Stale file handle"):
        store.list()


WRITER = """
import sys
from harness.storage.store import Store
for _ in range(50):
    Store(sys.argv[1]).put("shared", sys.argv[2].encode() * 100_000)
"""


def test_readers_never_see_a_mixture(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("shared", b"a" * 100_000)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        seen = store.get("shared")
        assert len(seen) == 100_000
        assert len(set(seen)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["shared"]


def test_a_kind_nobody_knows_is_the_users_error() -> None:
    with pytest.raises(
        UserError, match=r"results: xyz://bucket: Protocol not known: xyz; use a path, s3://"
    ):
        Store("xyz://bucket")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(
        UserError, match=r"results: gs://bucket: Please install gcsfs to access Google"
    ):
        Store("gs://bucket")
