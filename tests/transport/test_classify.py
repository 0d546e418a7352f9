"""Statuses as typed errors."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from transport_doubles import FakeResponse, Script, failure, request_for

from apex_llm.errors import (
    ApexLlmError,
    ConnectionFailedError,
    InvalidRequestError,
    OverloadedError,
    RateLimitError,
    ResponseFormatError,
)
from apex_llm.transport.classify import ClassifyLayer
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.pipeline import compose
from apex_llm.types.http import HttpRequest, Origin

EVENT_STREAM = "application/vnd.amazon.eventstream"


def unexpected(headers, body, request):
    return ResponseFormatError(f"Expected a stream, got {body[:20]!r}.")


def expected(request: HttpRequest) -> str | None:
    return EVENT_STREAM if request.stream else None


def classified(*answers, **options):
    return compose([ClassifyLayer(failure, **options)], Script(*answers))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_good_answers_pass_untouched_and_unread(status):
    answer = FakeResponse(status, pieces=[b"{}"])

    assert await classified(answer)(request_for()) is answer
    assert answer.bytes_read == 0
    assert not answer.closed


async def test_other_statuses_raise_the_providers_error_with_all_facts_and_close_the_response():
    answer = FakeResponse(
        429, {"x-amzn-errortype": "ThrottlingException", "retry-after": "3"}, [b"Too many ", b"requests"]
    )

    with pytest.raises(RateLimitError) as caught:
        await classified(answer, provider="bedrock")(request_for())

    error = caught.value
    assert error.message == "Too many requests"
    assert (error.status, error.code, error.provider) == (429, "ThrottlingException", "bedrock")
    assert error.model == "anthropic.claude-sonnet-4-6"
    assert error.retry_after == 3.0
    assert error.phase == "head"
    assert error.headers["retry-after"] == "3"
    assert answer.closed


async def test_facts_that_the_provider_found_are_kept_except_that_headers_know_the_wait_best():
    def knowing(status, headers, body, request):
        return RateLimitError("slow", status=429, provider="azure_openai", model="mine", phase="body", retry_after=18.0)

    send = compose([ClassifyLayer(knowing, provider="x")], Script(FakeResponse(400, {"retry-after-ms": "500"})))
    with pytest.raises(RateLimitError) as caught:
        await send(request_for())

    error = caught.value
    assert (error.status, error.provider, error.model, error.phase) == (429, "azure_openai", "mine", "body")
    assert error.retry_after == 0.5


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 418, 500, 520, 529, 599])
async def test_nothing_but_2xx_is_an_answer(status):
    """Redirects above all: following one would send the prompt to another origin."""
    with pytest.raises(ApexLlmError) as caught:
        await classified(FakeResponse(status, {"location": "https://evil.example/"}))(request_for())

    assert caught.value.status == status


async def test_a_body_that_breaks_does_not_hide_the_status():
    answer = FakeResponse(503, pieces=[b"half of ", ConnectionFailedError("reset", kind="reset")])

    with pytest.raises(OverloadedError) as caught:
        await classified(answer)(request_for())

    assert caught.value.status == 503
    assert caught.value.message == "half of "


async def test_at_most_a_mebibyte_of_an_error_is_read():
    answer = FakeResponse(500, pieces=[b"x" * 65536 for _ in range(10_000)])
    seen = []

    def measuring(status, headers, body, request):
        seen.append(len(body))
        return OverloadedError("500")

    with pytest.raises(OverloadedError):
        await compose([ClassifyLayer(measuring)], Script(answer))(request_for())

    assert seen == [1 << 20]
    assert answer.bytes_read == 1 << 20
    assert answer.closed


async def test_an_error_body_that_drips_holds_nobody_up_until_the_deadline():
    answer = FakeResponse(503, pieces=[b"{}"])

    with pytest.raises(OverloadedError):
        await classified(answer)(request_for())

    assert answer.read_deadline is not None
    assert answer.read_deadline <= asyncio.get_running_loop().time() + 5


async def test_cancellation_while_reading_an_error_closes_the_response():
    answer = FakeResponse(503, pieces=[asyncio.CancelledError()])

    with pytest.raises(asyncio.CancelledError):
        await classified(answer)(request_for())

    assert answer.closed


class TestContentType:
    @pytest.mark.parametrize(
        "content_type",
        [
            EVENT_STREAM,
            "Application/Vnd.Amazon.EventStream",
            f"{EVENT_STREAM} ; charset=utf-8",
            "",
            "application/octet-stream",
            "Binary/Octet-Stream; q=1",
        ],
    )
    async def test_a_stream_of_the_expected_type_or_of_none_passes(self, content_type):
        """Bytes of no particular kind are what servers send that were not told: many an own gateway's."""
        answer = FakeResponse(200, {"content-type": content_type} if content_type else {})
        send = classified(answer, unexpected=unexpected, expected_content_type=expected)

        assert await send(request_for(stream=True)) is answer

    async def test_a_login_page_instead_of_a_stream_is_an_error(self):
        answer = FakeResponse(200, {"content-type": "text/html"}, [b"<html>Please log in"])
        send = classified(answer, unexpected=unexpected, expected_content_type=expected)

        with pytest.raises(ResponseFormatError, match="Please log in") as caught:
            await send(request_for(stream=True))

        assert caught.value.status == 200
        assert answer.closed

    async def test_requests_without_an_expectation_take_any_type_but_html(self):
        """Gateways relabel JSON in many ways; a page for humans is never the answer."""
        plain = FakeResponse(200, {"content-type": "text/plain"})
        send = classified(plain, unexpected=unexpected, expected_content_type=expected)

        assert await send(request_for(stream=False)) is plain

        page = FakeResponse(200, {"content-type": "text/html; charset=utf-8"}, [b"<h1>Please log in</h1>"])
        send = classified(page, unexpected=unexpected, expected_content_type=expected)
        with pytest.raises(ResponseFormatError, match="Please log in"):
            await send(request_for(stream=False))

    def test_half_an_expectation_is_refused(self):
        with pytest.raises(ValueError, match="belong together"):
            ClassifyLayer(failure, expected_content_type=expected)


class TestShouldRetry:
    @pytest.mark.parametrize(("advice", "retryable"), [("true", True), ("False", False), ("maybe", False)])
    async def test_advice_is_obeyed_where_the_provider_means_it(self, advice, retryable):
        def refusing(status, headers, body, request):
            return InvalidRequestError("400")

        send = compose(
            [ClassifyLayer(refusing, obey_should_retry=True)], Script(FakeResponse(400, {"x-should-retry": advice}))
        )
        with pytest.raises(InvalidRequestError) as caught:
            await send(request_for())

        assert caught.value.retryable is retryable

    async def test_advice_is_nobodys_promise_elsewhere(self):
        with pytest.raises(OverloadedError) as caught:
            await classified(FakeResponse(503, {"x-should-retry": "false"}))(request_for())

        assert caught.value.retryable is True


async def test_reset_headers_tell_the_wait_of_a_429_and_of_nothing_else():
    headers = {"x-ratelimit-reset-tokens": "17"}

    with pytest.raises(RateLimitError) as throttled:
        await classified(FakeResponse(429, headers))(request_for())
    with pytest.raises(OverloadedError) as overloaded:
        await classified(FakeResponse(503, headers))(request_for())

    assert throttled.value.retry_after == 17.0
    assert overloaded.value.retry_after is None


class TestOverSockets:
    """The same with real connections: what is read, what is closed, and what goes back to the pool."""

    HEAD = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\nretry-after: 7\r\n\r\n"

    @contextlib.asynccontextmanager
    async def server(self, answer):
        connections = []
        tasks = set()

        async def serve(reader, writer):
            connections.append(writer)
            tasks.add(asyncio.current_task())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    await answer(writer)
                    await writer.drain()
                    if writer.is_closing():
                        break
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        sender = Http11Sender()
        origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            send = compose([ClassifyLayer(failure, body_seconds=0.2)], sender)
            yield send, request_for(origin=origin, body=b"", stream=True), connections
        finally:
            await sender.aclose()
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def test_a_connection_whose_error_was_read_serves_the_next_call(self):
        async def answer(writer):
            writer.write(self.HEAD % 5 + b"whole")

        async with self.server(answer) as (send, request, connections):
            for _ in range(3):
                with pytest.raises(OverloadedError, match="whole") as caught:
                    await send(request)
            assert caught.value.retry_after == 7.0
            assert len(connections) == 1

    async def test_a_short_error_still_tells_its_status_and_wait(self):
        async def answer(writer):
            writer.write(self.HEAD % 100 + b"half")
            writer.close()

        async with self.server(answer) as (send, request, _):
            with pytest.raises(OverloadedError, match="half") as caught:
                await send(request)
            assert caught.value.retry_after == 7.0

    async def test_a_dripping_error_is_cut_off(self):
        async def answer(writer):
            writer.write(self.HEAD % 100_000)
            for _ in range(10_000):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with self.server(answer) as (send, request, _):
            started = time.monotonic()
            with pytest.raises(OverloadedError, match="xx") as caught:
                await send(request)
            assert caught.value.status == 503
            assert time.monotonic() - started < 5

    async def test_an_endless_error_is_cut_off(self):
        async def answer(writer):
            writer.write(self.HEAD % 10**9)
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

        async with self.server(answer) as (send, request, _):
            with pytest.raises(OverloadedError):
                await send(request)
