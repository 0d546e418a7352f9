"""The recorded provider traffic of ``data/``, as values.

Each recording carries the record of ``expected.jsonl`` with the same id: what other
people's software reads from the same bytes. ``data/README.md`` explains every field.
"""

from __future__ import annotations

__all__ = ["Recording", "load_recordings"]

import base64
import functools
import gzip
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Recording:
    """One HTTP exchange."""

    id: str
    service: str
    """``bedrock-runtime``, ``mantle``, ``azure-openai``, ``openai``, …."""
    operation: str
    """``converse``, ``converse-stream``, ``invoke``, ``chat``, ``responses``, …."""
    kind: str
    """``event-stream``, ``sse``, ``json`` or ``other``."""
    provenance: str
    """``recorded`` is byte for byte; ``hand-written`` is good for tolerance, useless as truth."""
    model: str | None
    request_url: str | None
    request_headers: tuple[tuple[str, str], ...] = field(repr=False)
    request_body: bytes | None = field(repr=False)
    """``None`` where the pack left it out."""
    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Of the answer. Trust ``kind`` before ``content-type``."""
    body: bytes = field(repr=False)
    """Of the answer."""
    expected: dict[str, Any] = field(repr=False)
    """``parsed``, ``text``, ``reasoning``, ``tool_calls``, ``finish_reason_raw``, ``input_tokens``, …."""

    def __str__(self) -> str:
        return self.id

    @property
    def request(self) -> Any:
        """The request's JSON, parsed; ``None`` where the pack left it out, or its source broke the quotes in it."""
        try:
            return None if self.request_body is None else json.loads(self.request_body)
        except ValueError:
            return None


def load_recordings(
    *,
    operation: str | None = None,
    kind: str | None = None,
    service: str | None = None,
    provenance: str | Collection[str] | None = None,
    status: int | None = None,
    parsed: bool | None = None,
) -> list[Recording]:
    """All recordings that match, in a fixed order; an empty list where ``data/`` is absent.

    Args:
        operation: Only these, such as ``"converse-stream"``.
        kind: Only these, such as ``"sse"``.
        service: Only these, such as ``"azure-openai"``.
        provenance: Only these, one or several.
        status: Only answers with this HTTP status.
        parsed: Whether the oracle could read the answer.
    """
    provenances = {provenance} if isinstance(provenance, str) else provenance
    return [
        recording
        for recording in _all_recordings()
        if (operation is None or recording.operation == operation)
        and (kind is None or recording.kind == kind)
        and (service is None or recording.service == service)
        and (provenances is None or recording.provenance in provenances)
        and (status is None or recording.status == status)
        and (parsed is None or recording.expected.get("parsed") is parsed)
    ]


@functools.cache
def _all_recordings() -> tuple[Recording, ...]:
    if not DATA.is_dir():
        return ()
    expected = {record["id"]: record for record in _lines(DATA / "expected.jsonl")}
    paths = sorted(path for path in DATA.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz")))
    return tuple(
        _recording(record, expected.get(record["id"], {}))
        for path in paths
        if path.name != "expected.jsonl"
        for record in _lines(path)
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return [json.loads(line) for line in text.splitlines() if line]


def _recording(record: dict[str, Any], expected: dict[str, Any]) -> Recording:
    request, response = record["request"], record["response"]
    body = base64.b64decode(response["body_b64"])
    if any(name.lower() == "content-encoding" and value == "gzip" for name, value in response["headers"]):
        body = gzip.decompress(body)
    request_body = request.get("body_b64")
    return Recording(
        id=record["id"],
        service=record["service"],
        operation=record["operation"],
        kind=record["kind"],
        provenance=record["provenance"],
        model=record["model"],
        request_url=request["url"],
        request_headers=tuple((name, value) for name, value in request["headers"]),
        request_body=None if request_body is None else base64.b64decode(request_body),
        status=response["status"],
        headers=tuple((name, value) for name, value in response["headers"]),
        body=body,
        expected=expected,
    )
