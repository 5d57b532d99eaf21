"""A local S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, key: str = "test", secret: str = "test"
) -> Iterator[str]:
    """Yield its `host:port`; the environment has its address and keys."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()  # one made before has no keys, or another's
    yield f"{host}:{port}"
    server.stop()
