"""What do the parts cost by themselves: signing, frames, server-sent events, JSON, and making an event?

Each part is asked for the same result as its rivals: the same request signed, the same frames and events taken apart.
``openai`` as JSON is what that client does with a chunk: ``json.loads`` and ``construct_type`` of its model.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from benchmarks.clients import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import tidy
from benchmarks.payloads import azure_events, bedrock_events

Part: TypeAlias = tuple[Callable[[], object], int]
"""What is timed, and how many units one call of it does."""

_URL_PATH = "/model/bench.call/converse"
_AUTHORITY = "bedrock-runtime.us-east-1.amazonaws.com"
_BODIES = {"sign_small": b"x" * 100, "sign_large": b"x" * 200_000}
_REPEATS = 5
_UNITS = 500
_BLOCK = 64 * 1024
_DELTA = b'{"contentBlockIndex":0,"delta":{"text":" word0001"},"p":"abcdefghijklmnopqrstuvwxyzABCDEF"}'
_EVENT = azure_events(1)[1][0]
_CHUNK = _EVENT[len(b"data: ") :].strip()


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: nanoseconds of CPU for one unit of each part that the variant has."""
    return {name: _timed(part, plan) for name, part in _PARTS[case.variant]()}


def _timed(part: Part, plan: Plan) -> dict[str, float]:
    run, units = part
    run()
    began = time.process_time()
    run()
    each = max(time.process_time() - began, 1e-7)
    if each > plan.seconds:
        return {"value": round(each / units * 1e9, 1), "units": units}
    count = max(1, int(plan.seconds / _REPEATS / each))
    runs: list[float] = []
    tidy(plan)
    for _ in range(_REPEATS):
        began = time.process_time()
        for _ in range(count):
            run()
        runs.append((time.process_time() - began) / (count * units) * 1e9)
    return {"value": round(statistics.median(runs), 1), "units": count * units * _REPEATS}


def _blocks(data: bytes) -> list[bytes]:
    return [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)]


def _frames() -> dict[str, list[bytes]]:
    each = bedrock_events(_UNITS)[1]
    return {"frame_block": _blocks(b"".join(each)), "frame_each": each}


def _events() -> dict[str, list[bytes]]:
    each = azure_events(_UNITS)[1]
    return {"sse_block": _blocks(b"".join(each)), "sse_each": each}


def _all_there(run: Callable[[], Iterable[object]]) -> Part:
    if sum(1 for _ in run()) != _UNITS:
        raise RuntimeError("Not every unit was found.")

    def exhaust() -> None:
        for _ in run():
            pass

    return exhaust, _UNITS


def _ours() -> Iterator[tuple[str, Part]]:
    import msgspec

    from apex_llm import TextDelta
    from apex_llm.codecs.chat.bedrock_converse.wire import BlockDelta
    from apex_llm.codecs.chat.openai_chat_wire import Chunk
    from apex_llm.protocol.eventstream import EventStreamDecoder
    from apex_llm.protocol.sigv4 import SigV4Signer
    from apex_llm.protocol.sse import SseDecoder

    signer = SigV4Signer(
        access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY, region=REGION, service="bedrock"
    )
    headers = (("content-type", "application/json"),)
    for name, body in _BODIES.items():

        def sign(body: bytes = body) -> object:
            return signer.sign(
                method="POST", target=_URL_PATH, authority=_AUTHORITY, headers=headers, body=body, timestamp=time.time()
            )

        yield name, (sign, 1)

    def fed(decoder: Callable[[], Any], reads: list[bytes]) -> Iterator[object]:
        feed = decoder().feed
        for read in reads:
            yield from feed(read)

    for name, reads in _frames().items():
        yield name, _all_there(lambda reads=reads: fed(EventStreamDecoder, reads))
    for name, reads in _events().items():
        yield name, _all_there(lambda reads=reads: fed(SseDecoder, reads))
    yield "json_delta", _each(msgspec.json.Decoder(BlockDelta).decode, _DELTA)
    yield "json_chunk", _each(msgspec.json.Decoder(Chunk).decode, _CHUNK)
    yield "event", _each(TextDelta, " word0001")


def _each(function: Callable[[Any], object], argument: object) -> Part:
    def run() -> None:
        for _ in range(_UNITS):
            function(argument)

    return run, _UNITS


def _botocore() -> Iterator[tuple[str, Part]]:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.eventstream import EventStreamBuffer

    auth = SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "bedrock", REGION)
    for name, body in _BODIES.items():

        def sign(body: bytes = body) -> object:
            request = AWSRequest(
                "POST", f"https://{_AUTHORITY}{_URL_PATH}", {"content-type": "application/json"}, data=body
            )
            auth.add_auth(request)
            return request.headers["Authorization"]

        yield name, (sign, 1)

    def decoded(reads: list[bytes]) -> Iterator[object]:
        buffer = EventStreamBuffer()
        for read in reads:
            buffer.add_data(read)
            yield from buffer

    for name, reads in _frames().items():
        yield name, _all_there(lambda reads=reads: decoded(reads))


def _awscrt() -> Iterator[tuple[str, Part]]:
    import io

    from awscrt import auth, http

    provider = auth.AwsCredentialsProvider.new_static(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    for name, body in _BODIES.items():

        def sign(body: bytes = body) -> object:
            headers = http.HttpHeaders([("host", _AUTHORITY), ("content-type", "application/json")])
            request = http.HttpRequest("POST", _URL_PATH, headers, io.BytesIO(body))
            config = auth.AwsSigningConfig(credentials_provider=provider, region=REGION, service="bedrock")
            return auth.aws_sign_request(request, config).result().headers.get("authorization")

        yield name, (sign, 1)


def _openai() -> Iterator[tuple[str, Part]]:
    from openai._models import construct_type
    from openai._streaming import SSEDecoder
    from openai.types.chat import ChatCompletionChunk

    for name, reads in _events().items():
        yield name, _all_there(lambda reads=reads: SSEDecoder().iter_bytes(iter(reads)))

    def constructed(data: bytes) -> object:
        return construct_type(type_=ChatCompletionChunk, value=json.loads(data))

    yield "json_chunk", _each(constructed, _CHUNK)


def _httpx_sse() -> Iterator[tuple[str, Part]]:
    import httpx
    from httpx_sse import EventSource

    head = {"content-type": "text/event-stream; charset=utf-8"}
    for name, reads in _events().items():
        yield (
            name,
            _all_there(lambda reads=reads: EventSource(httpx.Response(200, headers=head, content=reads)).iter_sse()),
        )


def _json() -> Iterator[tuple[str, Part]]:
    yield "json_delta", _each(json.loads, _DELTA)
    yield "json_chunk", _each(json.loads, _CHUNK)


def _dataclass() -> Iterator[tuple[str, Part]]:
    from dataclasses import dataclass

    @dataclass(frozen=True, slots=True)
    class Event:
        text: str
        index: int = 0

    yield "event", _each(Event, " word0001")


def _pydantic() -> Iterator[tuple[str, Part]]:
    from pydantic import BaseModel

    class Event(BaseModel):
        text: str
        index: int = 0

    yield "event", _each(lambda text: Event(text=text), " word0001")


_PARTS: dict[str, Callable[[], Iterator[tuple[str, Part]]]] = {
    "apex_llm": _ours,
    "botocore": _botocore,
    "awscrt": _awscrt,
    "openai": _openai,
    "httpx-sse": _httpx_sse,
    "json": _json,
    "frozen dataclass": _dataclass,
    "pydantic": _pydantic,
}


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="components",
    question="CPU time of the parts by themselves",
    unit="ns",
    metrics={
        "sign_small": "Sign 100 bytes",
        "sign_large": "Sign 200 KB",
        "frame_block": "A frame of 189 bytes, reads of 64 KB",
        "frame_each": "A frame of 189 bytes, a read each",
        "sse_block": "An SSE event of 494 bytes, reads of 64 KB",
        "sse_each": "An SSE event of 494 bytes, a read each",
        "json_delta": "JSON of a Converse delta, typed",
        "json_chunk": "JSON of an Azure chunk, typed",
        "event": "Make an event",
    },
    cases=(
        Case("", "apex_llm"),
        Case("", "botocore", "botocore", "vendors"),
        Case("", "awscrt", "awscrt", "crt"),
        Case("", "openai", "openai", "vendors"),
        Case("", "httpx-sse", "httpx_sse", "vendors"),
        Case("", "json"),
        Case("", "frozen dataclass"),
        Case("", "pydantic", "pydantic"),
    ),
    measure=_measure,
)
