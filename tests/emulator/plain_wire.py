"""Raw HTTP against the emulator, signed by botocore: nothing of our own client is used here."""

import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from apex_llm.emulator import Emulator

CLAUDE = "us.anthropic.claude-sonnet-4-6"


@dataclass
class Answered:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One emulator and a plain HTTP client."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.host = urlsplit(emulator.url).netloc

    def send(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> Answered:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answered(response.status, response.headers, response.read())
        finally:
            connection.close()

    def signed(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        service: str = "bedrock",
        region: str | None = None,
        secret: str | None = None,
        adapt: Callable[[SigV4Auth], None] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> list[tuple[str, str]]:
        """The headers of a request that botocore signed."""
        emulator = self.emulator
        request = AWSRequest(method, emulator.url + target, headers=dict(headers), data=body)
        request.headers["Host"] = self.host
        credentials = Credentials(emulator.access_key_id, secret or emulator.secret_access_key)
        auth = SigV4Auth(credentials, service, region or emulator.region)
        if adapt is not None:
            adapt(auth)
        auth.add_auth(request)
        return list(request.headers.items())

    def call(self, target: str, value: Any, **options: Any) -> Answered:
        """POST JSON, signed."""
        body = json.dumps(value).encode()
        return self.send("POST", target, self.signed("POST", target, body, **options), body)

    def get(self, target: str, **options: Any) -> Answered:
        """GET, signed."""
        return self.send("GET", target, self.signed("GET", target, **options))

    def converse(self, value: Any = None, *, model: str = CLAUDE, stream: bool = False, **options: Any) -> Answered:
        """Converse, signed."""
        operation = "converse-stream" if stream else "converse"
        body = {"messages": [{"role": "user", "content": [{"text": "Hi there"}]}]} if value is None else value
        return self.call(f"/model/{quote(model, safe='')}/{operation}", body, **options)

    def chat(self, value: Any = None, *, target: str | None = None, headers: Any = None, **members: Any) -> Answered:
        """Azure chat on a dated path."""
        body = {"messages": [{"role": "user", "content": "Hi there"}], **members} if value is None else value
        sent = [("host", self.host), ("api-key", self.emulator.api_key)] if headers is None else headers
        path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21" if target is None else target
        return self.send("POST", path, sent, json.dumps(body).encode())

    def raw(self, data: bytes) -> bytes:
        """Bytes to the socket, and all that comes back until it closes."""
        host, port = self.host.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(data)
            received = b""
            while piece := connection.recv(65536):
                received += piece
            return received
