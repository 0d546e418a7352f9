"""A fake of everything that hands out credentials, on loopback, and an environment with nobody's keys in it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from credential_fakes import Fake, Seen

from apex_llm.transport.http11_sender import Http11Sender


@pytest.fixture
def fake() -> Iterator[Fake]:
    served = Fake(answer=lambda _: 404)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            seen = Seen(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
            served.seen.append(seen)
            given = served.answer(seen)
            headers: dict[str, str] = {}
            if isinstance(given, int):
                given = (given, "")
            status, body, *rest = given if isinstance(given, tuple) else (200, given)
            if rest:
                headers = rest[0]
            content = (
                body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def send():
    sender = Http11Sender(allow_link_local=True)
    yield sender
    await sender.aclose()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the credentials of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "IDENTITY_", "MSI_", "BOTO_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    (folder / ".aws").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,169.254.169.254,169.254.170.2")
    return folder
