"""The ASGI application: one endpoint that gives each request to the cloud whose path it has.

Order of a request: recorded, authenticated, checked, answered from the script or by default.
A request that is refused uses up no scripted answer.
"""

from __future__ import annotations

__all__ = ["Service", "create_application"]

import asyncio
from collections.abc import Callable, MutableSequence
from email.utils import formatdate
from random import Random
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from apex_llm.emulator.answers import Answer
from apex_llm.emulator.defaults import Call
from apex_llm.emulator.playback import Playback
from apex_llm.emulator.quota import TokenQuotas
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.script import Script
from apex_llm.emulator.wire import Refusal, Reply

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Service(Protocol):
    """One cloud."""

    def identify(self, request: RecordedRequest) -> None:
        """Set operation and model from the path."""
        ...

    def authenticate(self, request: RecordedRequest) -> None:
        """Raise ``Refusal`` unless the caller is who it says it is."""
        ...

    def scriptable(self, operation: str) -> bool:
        """Whether answers for no operation in particular may be played here."""
        ...

    def prepare(self, request: RecordedRequest) -> Call | Reply:
        """Check the request, or raise ``Refusal``."""
        ...

    def write(self, answer: Answer | None, call: Call, request: RecordedRequest) -> Reply:
        """The answer on this wire."""
        ...

    def refuse(self, refusal: Refusal, request: RecordedRequest) -> Reply:
        """The refusal on this wire."""
        ...

    def usual_headers(self, request: RecordedRequest) -> tuple[tuple[str, str], ...]:
        """Headers that every answer has."""
        ...


def create_application(
    *,
    bedrock: Service,
    azure: Service,
    script: Script,
    quotas: TokenQuotas,
    requests: MutableSequence[RecordedRequest],
    clock: Callable[[], float],
    random: Random | None = None,
) -> Starlette:
    """The application; ``requests`` grows by each request that arrives, ``random`` cuts what faults write."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await request.body()
        except (ClientDisconnect, asyncio.CancelledError):
            return Response(status_code=400)  # nobody is there to read it
        recorded = RecordedRequest(
            method=request.method,
            path=request.scope["raw_path"].decode("latin-1"),
            query_string=request.scope["query_string"].decode("latin-1"),
            raw_headers=tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]
            ),
            body=body,
            received_at=clock(),
        )
        service = azure if recorded.path.startswith("/openai/") else bedrock
        service.identify(recorded)
        requests.append(recorded)
        answer, reply = _answer(service, recorded, script, quotas)
        recorded.status = reply.status
        date = ("date", formatdate(recorded.received_at, usegmt=True))
        headers = (date, *service.usual_headers(recorded))
        return Playback(reply, answer, headers, request=recorded, random=random)

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=_METHODS)])


def _answer(
    service: Service, request: RecordedRequest, script: Script, quotas: TokenQuotas
) -> tuple[Answer | None, Reply]:
    try:
        service.authenticate(request)
        prepared = service.prepare(request)
        if isinstance(prepared, Call):
            wait = quotas.charge(request.model, prepared, now=request.received_at)
            if wait is not None:
                refused = Answer.throttle(retry_after_ms=wait)
                return refused, service.write(refused, prepared, request)
        answer = script.take(request, anything=service.scriptable(request.operation))
        if isinstance(prepared, Call):
            return answer, service.write(answer, prepared, request)
        if answer is None or (answer.failure is None and answer.body is None):
            return answer, prepared
        return answer, service.write(answer, Call(model=request.model), request)
    except Refusal as refusal:
        return None, service.refuse(refusal, request)
