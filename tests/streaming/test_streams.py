"""The iterators over a scripted exchange: what is delivered, what is kept, and how a stream ends."""

from __future__ import annotations

import asyncio
import collections.abc
import copy
import gc
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest

from apex_llm.errors import (
    ApexLlmError,
    ConnectionFailedError,
    ContentFilteredError,
    EventStreamError,
    IdleTimeoutError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
    StreamTruncatedError,
)
from apex_llm.streaming import EventStream, TextStream, open_exchange
from apex_llm.types.events import (
    ReasoningDelta,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UnknownEvent,
)
from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Origin, Timeout
from apex_llm.types.messages import ReasoningPart, TextPart, ToolCallPart
from apex_llm.types.responses import FinishReason, Usage

END = StreamFinished(FinishReason.STOP, "end_turn", Usage(input_tokens=3, output_tokens=2))


class Script:
    """A response, framing and decoder in one: each read gives the next step of a script.

    A step is a list of events, or an error; an error inside the list is raised by the decoder
    after the events before it. The end of the script is the clean end of the body.
    """

    def __init__(self, *steps: Sequence[StreamEvent | ApexLlmError] | ApexLlmError, terminal: bool = True) -> None:
        self.steps = list(steps)
        self.terminal = terminal
        self.closed = 0
        self.sends = 0
        self.status = 200
        self.headers = Headers((("x-amzn-requestid", "request-1"),))
        self.deadline: float | None = None
        self.read_deadline: float | None = None
        self.deadlines: list[float | None] = []
        self.hang = asyncio.Event()
        self._step: Sequence[StreamEvent | ApexLlmError] = ()

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sends += 1
        self.read_deadline = request.timeout.first_byte
        return self

    async def read(self) -> bytes:
        self.deadlines.append(self.read_deadline)
        if not self.steps:
            return b""
        step = self.steps.pop(0)
        if isinstance(step, ApexLlmError):
            raise step
        if step and step[0] == "hang":
            await self.hang.wait()
        self._step = step
        return b"x"

    async def read_all(self, *, limit: int) -> bytes:
        raise AssertionError

    def close(self) -> None:
        self.closed += 1

    def add_release(self, callback: Callable[[], None]) -> None:
        raise AssertionError

    # framing and decoder at once
    def feed(self, first: bytes | str, payload: bytes | None = None) -> Iterator[tuple[str, bytes]] | list[StreamEvent]:
        if payload is None:
            return iter([(str(index), b"") for index in range(len(self._step))])
        item = self._step[int(first)]
        if isinstance(item, ApexLlmError):
            raise item
        return [item]

    def finish(self) -> Sequence[StreamEvent]:
        return ()


class Decoder:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.feed = script.feed

    def finish(self) -> Sequence[StreamEvent]:
        if not self.script.terminal:
            raise StreamTruncatedError("no terminal event")
        return [END]


REQUEST = HttpRequest(
    method="POST", origin=Origin("https", "h", 443), target="/", stream=True, timeout=Timeout(idle=7.0)
)


def stream_over(script: Script, kind: type = EventStream, **arguments):
    return kind(
        lambda: open_exchange(script.send, REQUEST, framing=lambda: script, decoder=lambda: Decoder(script)),
        provider="bedrock",
        model="m",
        **arguments,
    )


async def test_both_streams_are_async_iterators_for_plugin_managers_that_ask() -> None:
    assert isinstance(stream_over(Script()), collections.abc.AsyncIterator)
    assert isinstance(stream_over(Script(), TextStream), collections.abc.AsyncIterator)


async def test_text_comes_piece_by_piece_and_the_response_holds_the_whole() -> None:
    script = Script([StreamStarted("id", "model-x"), TextDelta("Hel")], [TextDelta("lo"), TextDelta("!")])

    async with stream_over(script, TextStream) as stream:
        pieces = [piece async for piece in stream]

    assert pieces == ["Hel", "lo", "!"]
    assert stream.response.text == "Hello!"
    assert stream.response.usage == Usage(input_tokens=3, output_tokens=2)
    assert stream.response.request_id == "request-1"
    assert stream.response.model == "model-x"


async def test_nothing_is_sent_before_the_stream_is_entered_or_iterated() -> None:
    script = Script([TextDelta("a")])

    stream = stream_over(script, TextStream)
    assert script.sends == 0
    await stream.__aenter__()
    assert script.sends == 1
    await stream.aclose()


async def test_partial_is_exactly_what_was_handed_over_not_what_was_decoded() -> None:
    script = Script([TextDelta("a"), TextDelta("b"), TextDelta("c")])

    async with stream_over(script, TextStream) as stream:
        assert await anext(stream) == "a"
        assert stream.partial.text == "a"
        assert await anext(stream) == "b"
        assert stream.partial.text == "ab"
        assert stream.partial.finish_reason is None
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.response


async def test_events_before_a_damaged_one_are_delivered_before_the_error() -> None:
    script = Script([TextDelta("a"), TextDelta("b"), EventStreamError("bad checksum")])

    seen: list[str] = []
    stream = stream_over(script, TextStream)
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in stream:
            seen.append(piece)

    assert seen == ["a", "b"]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "ab"
    assert isinstance(caught.value.__cause__, EventStreamError)
    assert script.closed


async def test_an_error_before_the_first_event_is_the_typed_error_itself() -> None:
    script = Script([RateLimitError("slow down", code="throttlingException")])

    with pytest.raises(RateLimitError) as caught:
        await anext(stream_over(script))

    assert caught.value.request_id == "request-1"
    assert script.closed


async def test_a_stream_without_its_terminal_event_is_truncated_and_carries_what_arrived() -> None:
    script = Script([TextDelta("Once upon")], terminal=False)

    stream = stream_over(script, TextStream)
    with pytest.raises(StreamTruncatedError) as caught:
        await stream.collect()

    assert caught.value.partial is not None
    assert caught.value.partial.text == "Once upon"
    assert caught.value.events_seen == 1
    assert caught.value.retryable


async def test_a_truncation_before_the_first_event_is_marked_as_unseen_so_that_it_may_be_retried() -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        await anext(stream_over(Script(terminal=False)))

    assert caught.value.events_seen == 0


async def test_a_broken_stream_raises_again_rather_than_ending_quietly() -> None:
    stream = stream_over(Script([TextDelta("a")], ConnectionFailedError("reset", kind="reset")), TextStream)
    assert await anext(stream) == "a"

    for _ in range(2):
        with pytest.raises(StreamInterruptedError):
            await anext(stream)


async def test_silence_between_events_is_an_idle_timeout_that_keeps_the_text() -> None:
    stream = stream_over(Script([TextDelta("a")], RequestTimeoutError("silence", phase="idle")), TextStream)
    assert await anext(stream) == "a"

    with pytest.raises(IdleTimeoutError) as caught:
        await anext(stream)

    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


async def test_silence_before_the_first_event_is_a_request_timeout_that_says_so() -> None:
    with pytest.raises(RequestTimeoutError) as caught:
        await anext(stream_over(Script(RequestTimeoutError("silence", phase="idle"))))

    assert caught.value.phase == "first_byte"


async def test_keep_alives_do_not_postpone_the_idle_deadline() -> None:
    """Reads that give no event, or only unknown ones, keep the deadline of the wait they belong to."""
    script = Script([TextDelta("a")], [], [UnknownEvent("new", b"")], [], [TextDelta("b")])

    stream = stream_over(script)
    events = [event async for event in stream]

    waiting = [deadline for deadline in script.deadlines[1:5] if deadline is not None]
    assert len(waiting) == 4
    assert max(waiting) - min(waiting) < 1.0, "each began seven seconds anew"
    assert UnknownEvent("new", b"") in events


async def test_the_time_a_caller_takes_over_an_unknown_event_is_not_silence() -> None:
    script = Script([TextDelta("a")], [UnknownEvent("new", b"")], [TextDelta("b")])
    stream = stream_over(script)
    assert [await anext(stream), await anext(stream)] == [TextDelta("a"), UnknownEvent("new", b"")]
    (waited,) = [deadline for deadline in script.deadlines[1:] if deadline is not None]

    await asyncio.sleep(0.05)
    assert await anext(stream) == TextDelta("b")

    last = script.deadlines[-1]
    assert last is not None
    assert last - waited >= 0.045
    await stream.aclose()


async def test_the_deadline_of_the_first_event_is_not_that_of_the_next_ones() -> None:
    """Nobody bounded the silence between them: a model that thinks in the middle must not end the stream."""
    script = Script([TextDelta("a")], [TextDelta("b")])
    request = msgspec.structs.replace(REQUEST, timeout=Timeout(first_byte=7.0, idle=None))
    stream = EventStream(
        lambda: open_exchange(script.send, request, framing=lambda: script, decoder=lambda: Decoder(script)),
        provider="bedrock",
        model="m",
    )

    async for _ in stream:
        pass

    assert script.deadlines[0] is not None
    assert set(script.deadlines[1:]) == {None}


async def test_leaving_early_closes_the_connection_at_once() -> None:
    script = Script([TextDelta("a")], [TextDelta("b")])

    async with stream_over(script, TextStream) as stream:
        async for _ in stream:
            break

    assert script.closed == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_nothing_is_handed_over_after_the_stream_was_closed() -> None:
    """Although it had arrived, and been decoded."""
    script = Script([TextDelta("a"), TextDelta("b"), TextDelta("c"), TextDelta("d")])
    for kind in (EventStream, TextStream):
        stream = stream_over(Script(*script.steps), kind)
        assert [await anext(stream), await anext(stream)]
        await stream.aclose()

        assert [item async for item in stream] == []
        assert await stream.next_batch() == []
        assert stream._take_ready() is None
        assert stream.partial.text == "ab"


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (5,), (2, 3), (1, 4), (4, 1)])
async def test_what_a_left_stream_holds_does_not_depend_on_how_the_network_cut_it(sizes: tuple[int, ...]) -> None:
    events = iter([StreamStarted(), TextDelta("a"), TextDelta("b"), UnknownEvent("new", b""), TextDelta("c")])
    script = Script(*[[next(events) for _ in range(size)] for size in sizes])

    async with stream_over(script, TextStream) as stream:
        async for _ in stream:
            break

    assert (stream.partial.text, stream.partial.usage, stream.partial.finish_reason) == ("a", None, None)
    for ask in (stream.collect, lambda: asyncio.to_thread(lambda: stream.response)):
        with pytest.raises(RuntimeError, match=r"left, or broke.*\.partial"):
            await ask()


async def test_collect_goes_on_from_where_the_caller_stopped() -> None:
    stream = stream_over(Script([TextDelta("a"), TextDelta("b")], [TextDelta("c")]), TextStream)
    async for _ in stream:
        break

    response = await stream.collect()

    assert (response.text, response.usage) == ("abc", END.usage)
    assert (await stream.collect()) == response


@pytest.mark.parametrize("arrived", [True, False], ids=["something had arrived", "nothing had"])
async def test_closing_a_stream_that_another_task_reads_is_told_to_it(arrived: bool) -> None:
    script = Script([TextDelta("a")], [TextDelta("b")])
    stream = stream_over(script, TextStream)
    assert await anext(stream) == "a"

    async def read() -> bytes:
        await script.hang.wait()
        if arrived:
            return await Script.read(script)
        raise ConnectionFailedError("The response was closed.", kind="closed")

    script.read = read  # type: ignore[method-assign]
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    script.hang.set()
    await stream.aclose()

    with pytest.raises(StreamInterruptedError, match="closed while it was being read") as caught:
        await reader
    assert not caught.value.retryable
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


@pytest.mark.parametrize("enter", [True, False])
async def test_closing_a_stream_that_another_task_opens_gives_the_opening_up(enter: bool) -> None:
    """A stop button, pressed while the model still thinks. The task goes on: it was not cancelled itself."""
    script = Script()
    cancelled = asyncio.Event()

    async def send(request: HttpRequest) -> HttpResponse:
        try:
            await script.hang.wait()
        finally:
            cancelled.set()
        return script

    script.send = send  # type: ignore[method-assign]
    stream = stream_over(script, TextStream)

    async def read() -> str:
        with pytest.raises(StreamInterruptedError, match="closed while it was being opened"):
            await (stream.__aenter__() if enter else anext(stream))
        await asyncio.sleep(0)
        return "went on"

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    await stream.aclose()
    await stream.aclose()

    assert await reader == "went on"
    assert reader.cancelling() == 0
    assert cancelled.is_set()
    with pytest.raises(StreamInterruptedError):
        await anext(stream)


async def test_what_is_opened_although_it_was_closed_is_closed_again() -> None:
    script = Script([TextDelta("a")])
    opened = asyncio.Event()

    async def send(request: HttpRequest) -> HttpResponse:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            opened.set()  # swallowed, as code of others may
        return script

    script.send = send  # type: ignore[method-assign]
    stream = stream_over(script)
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()

    with pytest.raises(StreamInterruptedError, match="closed while it was being opened"):
        await reader
    assert opened.is_set()
    assert script.closed


async def test_a_stream_is_opened_once_however_many_tasks_want_to() -> None:
    script = Script([TextDelta("a")])

    async def send(request: HttpRequest) -> HttpResponse:
        script.sends += 1
        await asyncio.sleep(0)
        return script

    script.send = send  # type: ignore[method-assign]
    stream = stream_over(script)

    outcomes = await asyncio.gather(*[stream.__aenter__() for _ in range(3)], anext(stream), return_exceptions=True)

    assert script.sends == 1
    assert [type(outcome) for outcome in outcomes] == [EventStream, RuntimeError, RuntimeError, RuntimeError]
    await stream.aclose()


async def test_a_stream_whose_opening_was_cancelled_does_not_look_like_an_empty_one() -> None:
    script = Script(["hang"])
    stream = stream_over(script)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await stream.__aenter__()

    with pytest.raises(StreamInterruptedError):
        await anext(stream)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_stream_is_not_copied_but_all_that_it_gives_is(how: Callable[[object], object]) -> None:
    """The first of two copies to be dropped would close the other's connection."""
    stream = stream_over(Script([StreamStarted("id", "m"), TextDelta("a"), ToolCallStarted(1, "c", "f")]))
    events = [event async for event in stream]

    with pytest.raises(TypeError, match="cannot be copied"):
        how(stream)
    for value in (*events, stream.response):
        twin = how(value)
        assert (pickle.loads(twin) if isinstance(twin, bytes) else twin) == value


async def test_cancelling_a_read_closes_the_connection_and_iterating_on_is_not_an_end() -> None:
    script = Script([TextDelta("a")], ["hang"])
    stream = stream_over(script, TextStream)
    assert await anext(stream) == "a"

    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert script.closed
    with pytest.raises(StreamInterruptedError, match="cancelled") as caught:
        await anext(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


async def test_two_tasks_cannot_read_one_stream() -> None:
    script = Script([TextDelta("a")], ["hang"])
    stream = stream_over(script, TextStream)
    await anext(stream)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    for read in (stream.__anext__, stream.next_batch, stream.collect):
        with pytest.raises(RuntimeError, match="another task"):
            await read()

    assert not script.closed, "whoever reads it reads on"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_dropped_stream_warns_with_the_line_that_made_it_and_closes() -> None:
    script = Script([TextDelta("a")], [TextDelta("b")])
    stream = stream_over(script, TextStream)
    await anext(stream)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stream
        gc.collect()

    assert script.closed
    assert [item.category for item in caught] == [ResourceWarning]
    assert "test_streams.py:" in str(caught[0].message)


async def test_a_stream_that_was_never_started_or_is_over_is_dropped_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = stream_over(Script([TextDelta("a")]))
        del stream
        stream = stream_over(Script([TextDelta("a")]))
        await stream.collect()
        del stream
        gc.collect()


async def test_collect_folds_every_kind_of_event_into_one_answer() -> None:
    script = Script(
        [
            StreamStarted("id", None),
            ReasoningDelta("think", 0),
            ReasoningDelta("", 0, signature="sig"),
            TextDelta("Looking", 1),
            ToolCallStarted(2, "call_1", "get_weather"),
            ToolCallDelta(2, '{"city":'),
            ToolCallStarted(3, "call_2", "get_time"),
            ToolCallDelta(2, '"Oslo"}'),
            ToolCallFinished(2, "call_1", "get_weather", '{"city":"Oslo"}'),
            ToolCallFinished(3, "call_2", "get_time", "{}"),
        ]
    )

    response = await stream_over(script).collect()

    assert response.message.parts == (
        ReasoningPart(text="think", signature="sig"),
        TextPart(text="Looking"),
        ToolCallPart(id="call_1", name="get_weather", arguments='{"city":"Oslo"}'),
        ToolCallPart(id="call_2", name="get_time", arguments="{}"),
    )


async def test_tool_arguments_so_far_are_in_the_partial() -> None:
    script = Script([ToolCallStarted(0, "c", "f"), ToolCallDelta(0, '{"a":')], ConnectionFailedError("cut"))

    with pytest.raises(StreamInterruptedError) as caught:
        await stream_over(script).collect()

    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls == (ToolCallPart(id="c", name="f", arguments='{"a":'),)


async def test_batches_give_the_first_piece_at_once_and_then_all_that_arrived_together() -> None:
    script = Script([TextDelta("a"), TextDelta("b"), TextDelta("c")], [TextDelta("d"), TextDelta("e")])
    stream = stream_over(script, TextStream)

    assert await stream.next_batch() == ["a"]
    assert await stream.next_batch() == ["b", "c"]
    assert await stream.next_batch() == ["d", "e"]
    assert await stream.next_batch() == []
    assert stream.response.text == "abcde"


async def test_the_first_content_does_not_wait_for_what_came_with_it() -> None:
    """Damage behind it in the same read is not even looked at before it is handed over."""
    script = Script([StreamStarted(), TextDelta("a"), TextDelta("b"), ConnectionFailedError("cut")])
    stream = stream_over(script)

    assert [await anext(stream), await anext(stream)] == [StreamStarted(), TextDelta("a")]
    assert await anext(stream) == TextDelta("b")
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "ab"


@pytest.mark.parametrize("beside", [True, False], ids=["in one read", "in a read of their own"])
@pytest.mark.parametrize("end", ["break", "cancel", "damage", "leave"])
async def test_unknown_events_are_handed_over_as_they_come_however_the_stream_goes_on(beside: bool, end: str) -> None:
    """Not kept for the next event that carries meaning, which may never come."""
    last: list[StreamEvent | ApexLlmError] = [EventStreamError("bad checksum")] if end == "damage" else ["hang"]
    unknown: list[StreamEvent | ApexLlmError] = [UnknownEvent("new", b"{}"), UnknownEvent("newer", b"{}")]
    steps = [[TextDelta("a"), *unknown]] if beside else [[TextDelta("a")], unknown]
    script = Script(*steps, ConnectionFailedError("reset") if end == "break" else last)
    stream = stream_over(script)

    assert [await anext(stream) for _ in range(3)] == [TextDelta("a"), *unknown]

    if end == "leave":
        await stream.aclose()
    elif end == "cancel":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
    else:
        with pytest.raises(StreamInterruptedError) as caught:
            await anext(stream)
        assert caught.value.events_seen == 3


async def test_unknown_events_before_a_refusal_do_not_keep_it_from_being_tried_again() -> None:
    """In one read or in several: what begins with them has not begun to answer."""
    unknown = UnknownEvent("new", b"{}")
    for steps in ([[unknown, RateLimitError("slow down")]], [[unknown], [unknown], [RateLimitError("slow down")]]):
        with pytest.raises(RateLimitError):
            await anext(stream_over(Script(*steps)))


async def test_a_blocked_answer_ends_a_text_stream_with_an_error_not_with_silence() -> None:
    script = Script([TextDelta("Well, ")])
    decoder = Decoder(script)
    decoder.finish = lambda: [StreamFinished(FinishReason.CONTENT_FILTER, "content_filter")]  # type: ignore[method-assign]
    stream = TextStream(
        lambda: open_exchange(script.send, REQUEST, framing=lambda: script, decoder=lambda: decoder),
        provider="azure_openai",
        model="m",
    )

    assert await anext(stream) == "Well, "
    with pytest.raises(ContentFilteredError) as caught:
        await anext(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Well, "
