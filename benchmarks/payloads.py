"""The bytes of both wires: answers as the server sends them, requests as the hand-written clients do.

Sizes are those of production traffic: a Converse text delta is a frame of 189 bytes (its payload is
padded with ``p``, as Bedrock does), an Azure chunk with its filter results an event of 494 bytes.
Written from the wire on purpose, without the package's own encoders.
"""

from __future__ import annotations

__all__ = [
    "AZURE_BODY",
    "AZURE_STREAM_BODY",
    "BEDROCK_BODY",
    "PROMPT",
    "answer",
    "azure_events",
    "bedrock_events",
    "chunk_of",
    "stream_chunks",
    "stream_head",
]

import json
import struct
import zlib

PROMPT = "Explain in three sentences why the sky is blue."
TEXT = "Sunlight is scattered by the molecules of the air. Blue is scattered most. So the sky is blue."

_FRAME_BYTES = 189
_SAFE = {"filtered": False, "severity": "safe"}
_FILTER = {"hate": _SAFE, "self_harm": _SAFE, "sexual": _SAFE, "violence": _SAFE}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


BEDROCK_BODY = _json(
    {"messages": [{"role": "user", "content": [{"text": PROMPT}]}], "inferenceConfig": {"maxTokens": 500}}
)
AZURE_BODY = _json({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 500})
AZURE_STREAM_BODY = _json(
    {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 500,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
)

_CONVERSE = _json(
    {
        "metrics": {"latencyMs": 731},
        "output": {"message": {"content": [{"text": TEXT}], "role": "assistant"}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 17, "outputTokens": 24, "totalTokens": 41},
    }
)
_COMPLETION = _json(
    {
        "choices": [
            {
                "content_filter_results": _FILTER,
                "finish_reason": "stop",
                "index": 0,
                "logprobs": None,
                "message": {"content": TEXT, "refusal": None, "role": "assistant"},
            }
        ],
        "created": 1763800000,
        "id": "chatcmpl-B0000000000000000000000000000",
        "model": "gpt-4o-2024-11-20",
        "object": "chat.completion",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTER}],
        "system_fingerprint": "fp_ee1d74bde0",
        "usage": {
            "completion_tokens": 24,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 0},
            "total_tokens": 41,
        },
    }
)

_HEADS = {
    "bedrock": b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: %s\r\n"
    b"Connection: keep-alive\r\nx-amzn-RequestId: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\n%s\r\n\r\n",
    "azure": b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: %s\r\n"
    b"apim-request-id: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\nx-ms-region: Sweden Central\r\n"
    b"x-ratelimit-remaining-requests: 999\r\nx-ratelimit-remaining-tokens: 99000\r\n%s\r\n\r\n",
}
_STREAM_TYPES = {"bedrock": b"application/vnd.amazon.eventstream", "azure": b"text/event-stream; charset=utf-8"}


def answer(wire: str) -> bytes:
    """A whole answer that is not streamed, head and body; ``wire`` is ``bedrock`` or ``azure``."""
    body = _CONVERSE if wire == "bedrock" else _COMPLETION
    return _HEADS[wire] % (b"application/json", b"Content-Length: %d" % len(body)) + body


def stream_head(wire: str) -> bytes:
    """The head of a streamed answer."""
    return _HEADS[wire] % (_STREAM_TYPES[wire], b"Transfer-Encoding: chunked")


def chunk_of(data: bytes) -> bytes:
    """``data`` as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_chunks(wire: str, pieces: int) -> list[bytes]:
    """The body of a streamed answer with ``pieces`` pieces of text, each event an HTTP chunk of its own."""
    opening, texts, closing = (bedrock_events if wire == "bedrock" else azure_events)(pieces)
    return [chunk_of(event) for event in (*opening, *texts, *closing)] + [b"0\r\n\r\n"]


def _frame(kind: str, payload: bytes) -> bytes:
    headers = b""
    for name, value in ((b":event-type", kind), (b":content-type", "application/json"), (b":message-type", "event")):
        raw = value.encode()
        headers += bytes((len(name),)) + name + b"\x07" + len(raw).to_bytes(2, "big") + raw
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _padded(kind: str, payload: dict[str, object]) -> bytes:
    missing = _FRAME_BYTES - len(_frame(kind, _json({**payload, "p": ""})))
    return _frame(kind, _json({**payload, "p": "abcdefghijklmnopqrstuvwxyz0123456789"[: max(0, missing)]}))


def bedrock_events(pieces: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The frames of a Converse stream: those before the text, one for each piece of it, those after."""
    opening = [_padded("messageStart", {"role": "assistant"})]
    texts = [
        _padded("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": f" word{number:04d}"}})
        for number in range(pieces)
    ]
    usage = {"inputTokens": 17, "outputTokens": pieces, "totalTokens": 17 + pieces}
    closing = [
        _padded("contentBlockStop", {"contentBlockIndex": 0}),
        _padded("messageStop", {"stopReason": "end_turn"}),
        _padded("metadata", {"metrics": {"latencyMs": 731}, "usage": usage}),
    ]
    return opening, texts, closing


def _chunk(
    delta: dict[str, object], *, finish: str | None = None, filtered: bool = True, **more: object
) -> dict[str, object]:
    choice: dict[str, object] = {
        "content_filter_results": _FILTER if filtered else {},
        "delta": delta,
        "finish_reason": finish,
        "index": 0,
        "logprobs": None,
    }
    return {
        "choices": [choice],
        "created": 1763800000,
        "id": "chatcmpl-B0000000000000000000000000000",
        "model": "gpt-4o-2024-11-20",
        "object": "chat.completion.chunk",
        "system_fingerprint": "fp_ee1d74bde0",
        "usage": None,
        **more,
    }


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def azure_events(pieces: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The events of an Azure chat stream: those before the text, one for each piece of it, those after."""
    opening = [
        _event(_chunk({}, choices=[], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": _FILTER}])),
        _event(_chunk({"content": "", "refusal": None, "role": "assistant"}, filtered=False)),
    ]
    texts = [_event(_chunk({"content": f" word{number:04d}"})) for number in range(pieces)]
    usage = {"completion_tokens": pieces, "prompt_tokens": 17, "total_tokens": 17 + pieces}
    closing = [
        _event(_chunk({}, finish="stop", filtered=False)),
        _event(_chunk({}, choices=[], usage=usage)),
        b"data: [DONE]\n\n",
    ]
    return opening, texts, closing
