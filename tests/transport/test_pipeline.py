"""Layers around a sender."""

from __future__ import annotations

import pytest
from transport_doubles import FakeResponse, Script, request_for

from apex_llm.errors import OverloadedError
from apex_llm.transport.pipeline import compose


def layer(name: str, trace: list[str]):
    async def around(request, send):
        trace.append(f"{name} down")
        try:
            return await send(request)
        finally:
            trace.append(f"{name} up")

    return around


async def test_the_first_layer_is_outermost():
    trace: list[str] = []
    answer = FakeResponse()
    send = compose([layer("observe", trace), layer("sign", trace)], Script(answer))

    assert await send(request_for()) is answer
    assert trace == ["observe down", "sign down", "sign up", "observe up"]


async def test_errors_pass_every_layer_on_their_way_up():
    trace: list[str] = []
    send = compose([layer("observe", trace), layer("sign", trace)], Script(OverloadedError("503")))

    with pytest.raises(OverloadedError):
        await send(request_for())
    assert trace[-2:] == ["sign up", "observe up"]


async def test_a_layer_may_change_the_request_or_answer_itself():
    answer = FakeResponse(204)
    sender = Script(FakeResponse())

    async def cached(request, send):
        return answer

    assert await compose([cached], sender)(request_for()) is answer
    assert sender.requests == []


async def test_without_layers_the_sender_is_the_pipeline():
    sender = Script(FakeResponse())

    assert compose([], sender) is sender
