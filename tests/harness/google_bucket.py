"""A local server with the interface of Google's storage, as far as fsspec lists and reads."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # would ask Google for the bucket's kind
pytest.importorskip("gcsfs")

OBJECTS = "/storage/v1/b/pictures/o"


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Iterator[None]:
    """Serve the bucket `pictures`; files called `closed…` are listed, but cannot be read."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path).removeprefix("/download")
            name = path.removeprefix(f"{OBJECTS}/")
            if path == OBJECTS:
                prefix = parse_qs(url.query).get("prefix", [""])[0]
                found = [_about(name, files) for name in sorted(files) if name.startswith(prefix)]
                self._answer(200, json.dumps({"items": found}).encode())
            elif name.rpartition("/")[2].startswith("closed"):
                self._answer(403, b"{}")
            else:
                self._answer(200 if name in files else 404, files.get(name, b"{}"))

        def _answer(self, code: int, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": place})
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _about(name: str, files: dict[str, bytes]) -> dict[str, str]:
    size = str(len(files[name]))
    time = "2026-01-01T00:00:00.000Z"
    return {"name": name, "bucket": "pictures", "size": size, "updated": time}
