"""The bytes of the wires: answers as the server sends them, requests as the hand-written clients do.

``bedrock`` is Converse, ``invoke`` Bedrock's InvokeModel in Claude's own format (which anthropic's client
speaks), ``azure`` chat completions. Sizes are those of production traffic: a Converse text delta is a frame
of 189 bytes and an InvokeModel one of 262 (padded with ``p``, as Bedrock does), an Azure chunk with its
filter results an event of 494 bytes. Written from the wire on purpose, without the package's own encoders.
"""

from __future__ import annotations

__all__ = [
    "AZURE_BODY",
    "AZURE_STREAM_BODY",
    "BEDROCK_BODY",
    "PROMPT",
    "TEXT",
    "answer",
    "azure_events",
    "bedrock_events",
    "chunk_of",
    "completion_body",
    "converse_body",
    "invoke_events",
    "long_text",
    "stream_head",
    "stream_parts",
]

import base64
import json
import struct
import zlib

PROMPT = "Explain in three sentences why the sky is blue."
TEXT = "Sunlight is scattered by the molecules of the air. Blue is scattered most. So the sky is blue."

_FRAME_BYTES = 189
_INVOKE_FRAME_BYTES = 262
_PADDING = "abcdefghijklmnopqrstuvwxyz0123456789"
_SAFE = {"filtered": False, "severity": "safe"}
_FILTER = {"hate": _SAFE, "self_harm": _SAFE, "sexual": _SAFE, "violence": _SAFE}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def converse_body(prompt: str) -> bytes:
    """A Converse request."""
    return _json({"messages": [{"role": "user", "content": [{"text": prompt}]}], "inferenceConfig": {"maxTokens": 500}})


def completion_body(prompt: str) -> bytes:
    """A chat completion's request."""
    return _json({"messages": [{"role": "user", "content": prompt}], "max_tokens": 500})


BEDROCK_BODY = converse_body(PROMPT)
AZURE_BODY = completion_body(PROMPT)
AZURE_STREAM_BODY = _json(
    {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 500,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
)


def long_text(size: int) -> str:
    """Text of about ``size`` bytes: lines, quotes and letters that JSON has to escape or encode, as answers have."""
    line = 'Der Himmel — "blau" — ist gestreutes Licht; Übriges folgt in Zeile {}.\n'
    lines = [line.format(number) for number in range(size // 60)]
    return "".join(lines).encode()[:size].decode("utf-8", "ignore")


def _converse(text: str) -> dict[str, object]:
    return {
        "metrics": {"latencyMs": 731},
        "output": {"message": {"content": [{"text": text}], "role": "assistant"}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 17, "outputTokens": 24, "totalTokens": 41},
    }


def _message(content: list[object], *, stop: str | None = "end_turn") -> dict[str, object]:
    return {
        "model": "claude-bench",
        "id": "msg_bdrk_01AAAAAAAAAAAAAAAAAAAAAA",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 17, "output_tokens": 24},
    }


def _invoke(text: str) -> dict[str, object]:
    return _message([{"type": "text", "text": text}])


def _completion(text: str) -> dict[str, object]:
    return {
        "choices": [
            {
                "content_filter_results": _FILTER,
                "finish_reason": "stop",
                "index": 0,
                "logprobs": None,
                "message": {"content": text, "refusal": None, "role": "assistant"},
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


_ANSWERS = {"bedrock": _converse, "invoke": _invoke, "azure": _completion}
_HEADS = {
    "bedrock": b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: %s\r\n"
    b"Connection: keep-alive\r\nx-amzn-RequestId: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\n%s\r\n\r\n",
    "azure": b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: %s\r\n"
    b"apim-request-id: 7c3b1f52-0d0e-4f5e-9a63-2f1f6f6f2b11\r\nx-ms-region: Sweden Central\r\n"
    b"x-ratelimit-remaining-requests: 999\r\nx-ratelimit-remaining-tokens: 99000\r\n%s\r\n\r\n",
}
_STREAM_TYPES = {
    "bedrock": b"application/vnd.amazon.eventstream",
    "invoke": b"application/vnd.amazon.eventstream",
    "azure": b"text/event-stream; charset=utf-8",
}


def _head(wire: str, *values: bytes) -> bytes:
    return _HEADS["azure" if wire == "azure" else "bedrock"] % values


def answer(wire: str, text: str = TEXT) -> bytes:
    """A whole answer that is not streamed, head and body."""
    body = json.dumps(_ANSWERS[wire](text), separators=(",", ":"), ensure_ascii=False).encode()
    return _head(wire, b"application/json", b"Content-Length: %d" % len(body)) + body


def stream_head(wire: str) -> bytes:
    """The head of a streamed answer."""
    return _head(wire, _STREAM_TYPES[wire], b"Transfer-Encoding: chunked")


def chunk_of(data: bytes) -> bytes:
    """``data`` as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_parts(wire: str, pieces: int) -> tuple[bytes, list[bytes], bytes]:
    """The body of a streamed answer: what stands before the text, one part for each piece of it, what follows.

    Each event is an HTTP chunk of its own, as both clouds send them.
    """
    opening, texts, closing = _EVENTS[wire](pieces)
    end = b"".join(map(chunk_of, closing)) + b"0\r\n\r\n"
    return b"".join(map(chunk_of, opening)), [chunk_of(text) for text in texts], end


def _frame(kind: str, payload: bytes) -> bytes:
    headers = b""
    for name, value in ((b":event-type", kind), (b":content-type", "application/json"), (b":message-type", "event")):
        raw = value.encode()
        headers += bytes((len(name),)) + name + b"\x07" + len(raw).to_bytes(2, "big") + raw
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _padded(kind: str, payload: dict[str, object], size: int = _FRAME_BYTES) -> bytes:
    missing = size - len(_frame(kind, _json({**payload, "p": ""})))
    return _frame(kind, _json({**payload, "p": _PADDING[: max(0, missing)]}))


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


def invoke_events(pieces: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The frames of an InvokeModel stream of Claude: those before the text, one for each piece of it, those after."""

    def framed(value: dict[str, object]) -> bytes:
        return _padded("chunk", {"bytes": base64.b64encode(_json(value)).decode()}, _INVOKE_FRAME_BYTES)

    opening = [
        framed({"type": "message_start", "message": _message([], stop=None)}),
        framed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ]
    texts = [
        framed(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" word{number:04d}"}}
        )
        for number in range(pieces)
    ]
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    closing = [
        framed({"type": "content_block_stop", "index": 0}),
        framed({"type": "message_delta", "delta": stop, "usage": {"output_tokens": pieces}}),
        framed({"type": "message_stop"}),
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


_EVENTS = {"bedrock": bedrock_events, "invoke": invoke_events, "azure": azure_events}
