"""What the fuzzed inputs are made of: recordings, published vectors, and a few answers written by hand."""

from __future__ import annotations

__all__ = [
    "AUTHORIZATION",
    "CLAUDE_EVENTS",
    "LISTING_PAGES",
    "WAITS",
    "bodies",
    "chat_streams",
    "chunk_frame",
    "claude_stream",
    "converse_streams",
    "event_bodies",
    "event_streams",
    "http_answer",
    "refusals",
]

import json
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from recorded import load_recordings

from apex_llm.protocol.eventstream import encode_message

_LONGEST_SAMPLE = 12_000
_VECTORS = Path(__file__).parent.parent / "vectors"


@cache
def event_streams() -> tuple[bytes, ...]:
    vectors = json.loads((_VECTORS / "eventstream_vectors.json").read_text())["vectors"]
    recorded = [recording.body for recording in load_recordings(kind="event-stream")]
    return tuple(_short([*recorded, *(bytes.fromhex(vector["hex"]) for vector in vectors if vector["valid"])]))


@cache
def converse_streams() -> tuple[bytes, ...]:
    return tuple(
        _short(recording.body for recording in load_recordings(operation="converse-stream", kind="event-stream"))
    )


@cache
def event_bodies() -> tuple[bytes, ...]:
    return tuple(_short(recording.body.replace(b"\r\n", b"\n") for recording in load_recordings(kind="sse")))


@cache
def chat_streams() -> tuple[bytes, ...]:
    return tuple(
        _short(recording.body.replace(b"\r\n", b"\n") for recording in load_recordings(operation="chat", kind="sse"))
    )


@cache
def bodies(operation: str) -> tuple[bytes, ...]:
    return tuple(_short(recording.body for recording in load_recordings(operation=operation, kind="json")))


@cache
def refusals() -> tuple[bytes, ...]:
    recorded = [recording.body for recording in load_recordings(kind="json") if recording.status >= 400]
    azure = {
        "error": {
            "code": "content_filter",
            "message": "m",
            "innererror": {"code": "x", "content_filter_result": {"hate": {"filtered": True}}},
        }
    }
    others = (
        {"Message": "m", "__type": "a#ThrottlingException"},
        {"detail": [{"loc": ["a", 1], "msg": "m"}]},
        {"message": "m"},
    )
    return tuple(_short([*recorded, *(json.dumps(value).encode() for value in (azure, *others))]))


CLAUDE_EVENTS: tuple[dict[str, Any], ...] = (
    {
        "type": "message_start",
        "message": {
            "id": "m",
            "role": "assistant",
            "model": "c",
            "content": [],
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello \u4e16\u754c"}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {
            "type": "citations_delta",
            "citation": {"type": "char_location", "cited_text": "x", "document_title": "d"},
        },
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "r", "url": "u"}]},
    },
    {"type": "content_block_stop", "index": 3},
    {"type": "content_block_start", "index": 4, "content_block": {"type": "redacted_thinking", "data": "AAAA"}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 9}},
)


@cache
def claude_stream() -> bytes:
    return b"".join(chunk_frame(json.dumps(event).encode()) for event in CLAUDE_EVENTS)


def chunk_frame(inner: bytes) -> bytes:
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, json.dumps({"bytes": b64encode(inner).decode(), "p": "abc"}).encode())


ANSWER_SHAPES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b",
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b",
    b"HTTP/1.0 200 OK\r\nx-length: %d\r\n\r\n%b",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n3\r\nxyz\r\n0\r\nx-trailer: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nx-length: %d\r\n\r\n%.0b",
)


def http_answer(dice: Random) -> bytes:
    body = dice.choice(bodies("converse"))[: dice.choice((0, 5, 300, 5000))]
    return dice.choice(ANSWER_SHAPES) % (len(body), body)


def _short(samples: Iterable[bytes]) -> list[bytes]:
    """Without the long ones, which cost much and reach nothing that short ones do not."""
    return [sample for sample in samples if sample and len(sample) <= _LONGEST_SAMPLE]


WAITS = (
    b"12",
    b"0.5",
    b"-1",
    b"1e400",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
)
AUTHORIZATION = (
    b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/bedrock/aws4_request, "
    b"SignedHeaders=host;x-amz-date, Signature=" + b"5" * 64
)
LISTING_PAGES = (
    {
        "modelSummaries": [
            {
                "modelId": "a",
                "modelArn": "arn:x/a",
                "modelName": "A",
                "inputModalities": ["TEXT"],
                "inferenceTypesSupported": ["ON_DEMAND"],
                "modelLifecycle": {"status": "ACTIVE"},
                "baseModelArn": "arn:x/b",
            }
        ],
        "nextToken": "t",
    },
    {
        "inferenceProfileSummaries": [
            {
                "inferenceProfileId": "us.a",
                "inferenceProfileArn": "arn",
                "type": "APPLICATION",
                "models": [{"modelArn": "arn:x/a"}],
                "status": "ACTIVE",
            }
        ]
    },
    {
        "provisionedModelSummaries": [
            {"provisionedModelArn": "arn", "foundationModelArn": "arn:x/a", "status": "InService"}
        ]
    },
    {"models": [{"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/a"}]},
    {
        "data": [
            {
                "id": "d",
                "model": "gpt-4o",
                "status": "succeeded",
                "capabilities": {"chat_completion": True, "embeddings": False},
                "owned_by": "o",
            }
        ]
    },
    {
        "value": [
            {
                "name": "d",
                "properties": {"model": {"name": "gpt-4o", "format": "OpenAI"}, "provisioningState": "Succeeded"},
            }
        ],
        "nextLink": "https://x/?a=b",
    },
)
