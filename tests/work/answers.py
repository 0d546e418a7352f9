"""What both clouds send, as bytes made once: never changed, or all numbers would change with it.

Members and sizes are those of production traffic, a delta's padding and an Azure event's filter results
included. Written from the wire on purpose, without the package's own encoders, and apart from those
of the benchmarks, which follow other needs.
"""

from __future__ import annotations

__all__ = ["PROMPT", "stream_of", "whole"]

import json
import struct
import zlib
from typing import Any, NamedTuple

PROMPT = "Explain in three sentences why the sky is blue."
TEXT = "Sunlight is scattered by the molecules of the air. Blue is scattered most. So the sky is blue."
PIECE = " scattered"

_SAFE = {"filtered": False, "severity": "safe"}
_FILTER = {"hate": _SAFE, "self_harm": _SAFE, "sexual": _SAFE, "violence": _SAFE}
_COMMON = {
    "created": 1763800000,
    "id": "chatcmpl-B0000000000000000000000000000",
    "model": "gpt-4o-2024-11-20",
    "system_fingerprint": "fp_ee1d74bde0",
}
_HEADS = {
    "bedrock": "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: {}\r\n"
    "Connection: keep-alive\r\nx-amzn-RequestId: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\n{}\r\n\r\n",
    "azure": "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: {}\r\n"
    "apim-request-id: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\nx-ms-region: Sweden Central\r\n"
    "x-ratelimit-remaining-requests: 999\r\nx-ratelimit-remaining-tokens: 99000\r\n{}\r\n\r\n",
}


class Stream(NamedTuple):
    """A streamed answer; every event is an HTTP chunk of its own, as both clouds send them."""

    opening: bytes
    """The head, and what is said before the first text."""
    piece: bytes
    closing: bytes


def whole(wire: str) -> bytes:
    """An answer that is not streamed; ``wire`` is ``bedrock`` or ``azure``."""
    body = _json(_CONVERSE if wire == "bedrock" else _COMPLETION)
    return _HEADS[wire].format("application/json", f"Content-Length: {len(body)}").encode() + body


def stream_of(wire: str) -> Stream:
    if wire == "bedrock":
        kind = "application/vnd.amazon.eventstream"
        opening = [_frame("messageStart", {"role": "assistant"})]
        piece = _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": PIECE}})
        closing = [
            _frame("contentBlockStop", {"contentBlockIndex": 0}),
            _frame("messageStop", {"stopReason": "end_turn"}),
            _frame("metadata", {"metrics": {"latencyMs": 731}, "usage": _CONVERSE["usage"]}),
        ]
    else:
        kind = "text/event-stream; charset=utf-8"
        prompt_filter = [{"prompt_index": 0, "content_filter_results": _FILTER}]
        opening = [
            _event(_chunk([], prompt_filter_results=prompt_filter)),
            _event(_chunk([_choice({"content": "", "refusal": None, "role": "assistant"}, filtered={})])),
        ]
        piece = _event(_chunk([_choice({"content": PIECE}, filtered=_FILTER)]))
        closing = [
            _event(_chunk([_choice({}, filtered={}, finish="stop")])),
            _event(_chunk([], usage=_COMPLETION["usage"])),
            b"data: [DONE]\n\n",
        ]
    head = _HEADS[wire].format(kind, "Transfer-Encoding: chunked").encode()
    return Stream(
        opening=head + b"".join(map(_http_chunk, opening)),
        piece=_http_chunk(piece),
        closing=b"".join(map(_http_chunk, closing)) + b"0\r\n\r\n",
    )


_CONVERSE: dict[str, Any] = {
    "metrics": {"latencyMs": 731},
    "output": {"message": {"content": [{"text": TEXT}], "role": "assistant"}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 17, "outputTokens": 24, "totalTokens": 41},
}
_COMPLETION: dict[str, Any] = {
    **_COMMON,
    "choices": [
        {
            "content_filter_results": _FILTER,
            "finish_reason": "stop",
            "index": 0,
            "logprobs": None,
            "message": {"content": TEXT, "refusal": None, "role": "assistant"},
        }
    ],
    "object": "chat.completion",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTER}],
    "usage": {
        "completion_tokens": 24,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 0},
        "total_tokens": 41,
    },
}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _frame(kind: str, payload: dict[str, Any]) -> bytes:
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes((len(name),)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = _json({**payload, "p": "abcdefghijklmnop"})
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _choice(delta: dict[str, Any], *, filtered: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"content_filter_results": filtered, "delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}


def _chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {**_COMMON, "choices": choices, "object": "chat.completion.chunk", "usage": None, **more}
