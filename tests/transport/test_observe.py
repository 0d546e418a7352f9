"""What is seen of an attempt, and what never is."""

from __future__ import annotations

import asyncio
import logging

import pytest
from transport_doubles import FakeResponse, Script, request_for

from apex_llm.errors import OverloadedError
from apex_llm.transport.observe import ObserveLayer, Observer
from apex_llm.transport.pipeline import compose


class Recorder(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def attempt_started(self, request):
        self.seen.append(("started", request.attempt))

    def attempt_finished(self, request, *, status, error, seconds):
        self.seen.append(("finished", status, type(error).__name__, seconds))

    def body_finished(self, request, *, seconds):
        self.seen.append(("body", seconds))


def ticking():
    ticks = iter(range(100))
    return lambda: float(next(ticks))


async def test_an_observer_hears_of_start_head_and_end():
    recorder = Recorder()
    send = compose([ObserveLayer(recorder, clock=ticking())], Script(FakeResponse(200, pieces=[b"x"])))

    response = await send(request_for(attempt=2))
    assert recorder.seen == [("started", 2), ("finished", 200, "NoneType", 1.0)]
    response.close()

    assert recorder.seen[2:] == [("body", 2.0)]


@pytest.mark.parametrize(
    ("error", "status"), [(OverloadedError("503", status=503), 503), (asyncio.CancelledError(), None)]
)
async def test_an_observer_hears_of_failures_and_cancellation(error, status):
    recorder = Recorder()

    with pytest.raises(type(error)) as caught:
        await compose([ObserveLayer(recorder, clock=ticking())], Script(error))(request_for())

    assert caught.value is error
    assert recorder.seen == [("started", 1), ("finished", status, type(error).__name__, 1.0)]


async def test_an_observer_that_raises_changes_nothing(caplog):
    class Broken(Observer):
        def attempt_started(self, request):
            raise ValueError("a bug")

        def attempt_finished(self, request, *, status, error, seconds):
            raise ValueError("a bug")

    recorder = Recorder()
    answer = FakeResponse()

    assert await compose([ObserveLayer(Broken(), recorder)], Script(answer))(request_for()) is answer
    assert [name for name, *_ in recorder.seen] == ["started", "finished"]
    assert caplog.text.count("an observer raised ValueError") == 2


async def test_debug_shows_one_line_without_query_headers_or_body(caplog):
    caplog.set_level(logging.DEBUG, logger="apex_llm.transport")
    request = request_for(headers=(("authorization", "Bearer hush"),), body=b"a prompt")

    await compose([ObserveLayer(clock=ticking())], Script(FakeResponse(200)))(request)
    with pytest.raises(OverloadedError):
        await compose([ObserveLayer()], Script(OverloadedError("echoes a prompt", status=503)))(request)

    good, bad = (record.getMessage() for record in caplog.records)
    assert good == (
        "POST bedrock-runtime.us-east-1.amazonaws.com converse model=anthropic.claude-sonnet-4-6 "
        "attempt=1 status=200 error=None in 1.000 s"
    )
    assert "status=503 error=OverloadedError" in bad
    for secret in ("hush", "prompt", "secret-query"):
        assert secret not in caplog.text


async def test_unused_it_adds_not_even_a_coroutine(monkeypatch: pytest.MonkeyPatch):
    # The watch for secrets (tests/canaries.py) reads the debug log of every other test.
    monkeypatch.setattr(logging.getLogger("apex_llm.transport"), "disabled", True)
    send = Script(FakeResponse())
    handed_over = object()

    assert ObserveLayer()(request_for(), lambda request: handed_over) is handed_over
    assert send.requests == []
