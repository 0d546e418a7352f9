"""What every client is told and what is asked of it."""

from __future__ import annotations

__all__ = [
    "ACCESS_KEY_ID",
    "API_KEY",
    "API_VERSION",
    "CREDENTIALS",
    "MAX_TOKENS",
    "REGION",
    "SECRET_ACCESS_KEY",
    "Client",
    "Target",
]

import ssl
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.payloads import PROMPT

REGION = "us-east-1"
ACCESS_KEY_ID = "AKIDBENCHMARK0000001"
SECRET_ACCESS_KEY = "benchmark/secret+access/key"
CREDENTIALS = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
API_KEY = "benchmark-api-key"
API_VERSION = "2024-10-21"
MAX_TOKENS = 500


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is and what it will be asked."""

    port: int
    width: int = 1
    """How many calls the client will be asked for at a time."""
    tls: bool = False
    """Over TLS; the authority is what ``SSL_CERT_FILE`` and its like name."""
    prompt: str = PROMPT
    host: str = "127.0.0.1"

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def context(self) -> ssl.SSLContext | None:
        """For clients that do not make one themselves."""
        return ssl.create_default_context() if self.tls else None


class Client(Protocol):
    """What is measured. One that blocks has the same methods without ``async``, and ``blocking`` set."""

    blocking: bool
    decodes: bool
    """Whether it gives texts; one that does not gives blocks of bytes, whose number means nothing."""

    def call(self, model: str) -> Awaitable[object]:
        """One answer that is not streamed."""
        ...

    def texts(self, model: str) -> AsyncIterator[object]:
        """The pieces of one stream."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
