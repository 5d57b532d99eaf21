"""The store on S3: a server on loopback that at times fails, stalls or loses its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featgan.errors import UserError
from harness.cluster.preflight import check_node
from harness.storage.lock import SweepLock
from harness.storage.store import Store

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
serving = pytest.importorskip("werkzeug.serving")

pytestmark = [
    # boto's and the test server's own: sockets kept open, datetimes without a zone.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Server:
    """An S3 server whose next requests can be made to fail."""

    def __init__(self) -> None:
        self.inner = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.faults: list[str] = []
        self.met: list[str] = []
        self.server = serving.make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        fault = self.faults.pop(0) if self.faults else ""
        if fault:
            self.met.append(fault)
        if fault == "stall":
            time.sleep(1)
        if fault == "lost answer":  # done, but the caller sees a failure
            list(self.inner(environment, lambda *_: None))
        if fault == "slow down":
            start("503 Slow Down", [("Content-Length", str(len(SLOW_DOWN)))])
            return [SLOW_DOWN]
        if fault:
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self.inner(environment, start)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Retries without the pauses between them: only their number is looked at here.
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.01)
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    monkeypatch.setattr("s3fs.S3FileSystem.read_timeout", 0.5)
    s3fs.S3FileSystem.clear_instance_cache()  # one made before has other settings
    server.faults.clear()
    server.met.clear()
    made = Store(f"s3://{tmp_path.name.replace('_', '-').lower()[-40:]}/results")
    made._fs.mkdir(made._base.partition("/")[0])
    return made


FAULTS = [
    ["error"] * 4,
    ["stall"],
    ["lost answer"],
    ["error", "stall", "lost answer", "error"],
]


@pytest.mark.parametrize("faults", FAULTS, ids=" ".join)
def test_every_call_outlives_a_storage_that_fails_for_a_while(
    store: Store, server: Server, tmp_path: Path, faults: list[str]
) -> None:
    def failing() -> None:
        assert server.faults == [], "the faults of the call before were not met"
        server.faults.extend(faults)

    failing()
    store.put("runs/a/run.json", b"one")
    failing()
    assert store.get("runs/a/run.json") == b"one"
    failing()
    found = dict(store.get_all(["runs/a/run.json", "runs/b/run.json"]))
    assert found == {"runs/a/run.json": b"one", "runs/b/run.json": None}
    failing()
    assert store.exists("runs/a/run.json")
    failing()
    assert store.create("lock/1", b"mine")
    failing()
    assert not store.create("lock/1", b"another's")
    failing()
    assert store.list() == ["lock/1", "runs/a/run.json"]
    failing()
    store.put("features/a/shard.npy", b"images")
    failing()
    assert store.local("features/a/shard.npy").read_bytes() == b"images"
    failing()
    store.move("runs/a/run.json", "runs/a/before.json")
    failing()
    store.delete("features/a/shard.npy")
    assert store.list() == ["lock/1", "runs/a/before.json"]


def test_a_storage_that_stays_unreachable_is_an_error(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("harness.storage.retry.OUTAGE_SECONDS", 0)
    hasty = Store(store.root)
    server.faults.extend(["error"] * 100)
    with pytest.raises(OSError, match=r"500|Internal"):
        hasty.put("a", b"1")
    server.faults.clear()


def test_a_storage_that_asks_to_slow_down_is_asked_again(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than its client tries by itself."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    hasty = Store(store.root)
    server.faults.extend(["slow down"] * 14)
    hasty.put("a", b"1")
    assert len(server.met) == 14
    assert hasty.get("a") == b"1"


def test_the_lock_works_on_s3(store: Store) -> None:
    with (
        SweepLock(store, "paper", beat=0.2),
        pytest.raises(UserError, match="is being run by process"),
        SweepLock(store, "paper"),
    ):
        pass
    with SweepLock(store, "paper"):
        assert store.list("paper") == ["paper/lock.json"]
    assert store.list("paper") == []


def test_a_bucket_that_is_not_there_is_named_by_the_node(store: Store) -> None:
    elsewhere = Store("s3://nobody-made-this/results")
    (problem,) = check_node(elsewhere, "token", {}, [], False)
    assert "s3://nobody-made-this/results" in problem
