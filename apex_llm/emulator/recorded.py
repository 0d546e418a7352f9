"""What arrived at the emulator, kept for tests to look at."""

from __future__ import annotations

__all__ = ["RecordedRequest"]

import json
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from apex_llm.types.http import Headers

_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "x-amz-security-token", "cookie"})


class RecordedRequest(msgspec.Struct, kw_only=True):
    """One request as it came, before anything was checked.

    Its repr shows neither secrets nor the body.
    """

    method: str
    path: str
    """Exactly as on the wire, percent-encoded, without the query."""
    query_string: str = ""
    raw_headers: tuple[tuple[str, str], ...] = ()
    """In the order of the wire, names in lower case, repeated names kept apart."""
    body: bytes = b""
    operation: str = ""
    """Such as ``converse-stream``, ``chat``, ``list-foundation-models``; empty for a path that nobody serves."""
    model: str = ""
    """The model id or deployment name, decoded."""
    received_at: float = 0.0
    """Seconds since the epoch."""
    status: int | None = None
    """Of the answer; ``None`` until its head was sent."""

    @property
    def headers(self) -> Headers:
        """The headers, looked up without regard to case."""
        return Headers(self.raw_headers)

    @property
    def query(self) -> dict[str, str]:
        """The query decoded; of a repeated name the last."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The body as JSON, or ``None`` where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def __repr__(self) -> str:
        shown = {name: "[redacted]" if name in _SECRET_HEADERS else value for name, value in self.raw_headers}
        return (
            f"RecordedRequest({self.method} {self.path}, operation={self.operation!r}, model={self.model!r}, "
            f"headers={shown!r}, body={len(self.body)} bytes, status={self.status})"
        )
