"""What pyarrow asks of Google's storage when it lists and reads, answered on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")

from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    Encoding,
    NoEncryption,
    PrivateFormat,
)

OBJECTS = "/storage/v1/b/pictures/o"
TIME = "2026-01-01T00:00:00.000Z"


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, bytes]
) -> Iterator[list[str]]:
    """Serve the bucket `pictures`; what was asked for. The environment holds the way and keys.

    Files that are called `closed…` are listed, but nobody may read them.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quietly."""

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            asked.append(path)
            name = path.removeprefix(f"{OBJECTS}/")
            if "Bearer" not in self.headers.get("Authorization", ""):
                self.answer(401, b"{}")
            elif path == OBJECTS:
                prefix = query.get("prefix", [""])[0]
                found = [about(name) for name in sorted(files) if name.startswith(prefix)]
                self.answer(200, json.dumps({"items": found}).encode())
            elif name.rpartition("/")[2].startswith("closed"):
                self.answer(403, b'{"error": {"code": 403, "message": "not for you"}}')
            elif name not in files:
                self.answer(404, b'{"error": {"code": 404, "message": "none"}}')
            else:
                media = query.get("alt") == ["media"]
                self.answer(200, files[name] if media else json.dumps(about(name)).encode())

        def answer(self, code: int, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def about(name: str) -> dict[str, str]:
        size = str(len(files[name]))
        return {"name": name, "bucket": "pictures", "size": size, "updated": TIME}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = folder / "google-key.json"
    key.write_text(json.dumps(account()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", place)
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def account() -> dict[str, str]:
    """A service account of nobody, who signs what it asks for."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "nobody@example.com",
        "token_uri": "http://127.0.0.1:9/",
    }
