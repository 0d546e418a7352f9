"""Streams without ``async for``: what is handed over, what is counted, and how they end."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import threading
import warnings
from typing import Any

import pytest
from sync_helpers import wait_until

import apex_llm
from apex_llm.emulator import Answer, Emulator
from apex_llm.errors import (
    ContentFilteredError,
    RateLimitError,
    StreamInterruptedError,
    StreamTruncatedError,
)
from apex_llm.sync import AzureOpenAIProvider, BedrockProvider, EventStream, SyncLlmProvider, TextStream
from apex_llm.sync._loop_thread import SHARED

WORDS = ("The", " quick", " brown", " fox")


@pytest.fixture
def bedrock(emulator: Emulator) -> collections.abc.Iterator[BedrockProvider]:
    with BedrockProvider(default_model="claude") as provider:
        yield provider


def open_connections(provider: BedrockProvider | AzureOpenAIProvider) -> int:
    senders = provider.async_provider._backend._senders.values()
    return sum(sender.open_connections for sender in senders)


def running_tasks() -> set[asyncio.Task[None]]:
    return SHARED.start("test").tasks


def test_text_comes_piece_by_piece_and_the_response_at_the_end(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.text(chunks=WORDS, usage={"input": 3, "output": 4}))

    with bedrock.generate_text_stream("Hi") as stream:
        assert isinstance(stream, TextStream)
        assert isinstance(stream, collections.abc.Iterator)
        assert tuple(stream) == WORDS

    assert stream.response.text == "".join(WORDS)
    assert stream.response.usage is not None
    assert stream.response.usage.output_tokens == 4


def test_a_bare_for_needs_no_with_and_leaves_nothing_behind(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.text(chunks=WORDS))

    assert list(bedrock.generate_text_stream("Hi")) == list(WORDS)
    wait_until(lambda: not running_tasks())


def test_events_are_the_very_same_values(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("weather", {"city": "Rome"}))

    with bedrock.chat_stream("Hi") as stream:
        assert isinstance(stream, EventStream)
        events = list(stream)

    assert [type(event) for event in events if not isinstance(event, apex_llm.ToolCallDelta)] == [
        apex_llm.StreamStarted,
        apex_llm.ToolCallStarted,
        apex_llm.ToolCallFinished,
        apex_llm.StreamFinished,
    ]
    assert stream.response.tool_calls[0].name == "weather"


def test_partial_is_exactly_what_was_handed_over(bedrock: BedrockProvider, emulator: Emulator) -> None:
    """All pieces arrive together here, so what was fetched runs ahead of what was handed over."""
    emulator.script(Answer.text(chunks=WORDS))
    stream = bedrock.generate_text_stream("Hi")
    assert stream.partial.text == ""

    with stream:
        for number, _ in enumerate(stream, 1):
            assert stream.partial.text == "".join(WORDS[:number])
            assert stream.partial.finish_reason is None
            with pytest.raises(RuntimeError, match="not been read to its end"):
                _ = stream.response
        assert stream.partial.finish_reason == "stop"
        assert stream.partial == stream.response


def test_partial_of_a_broken_stream_is_what_was_handed_over(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.cut(Answer.text(chunks=WORDS), after_events=4))
    given: list[str] = []

    with bedrock.generate_text_stream("Hi") as stream, pytest.raises(StreamInterruptedError) as caught:
        given.extend(stream)
        pytest.fail("it looked like an end")

    assert caught.value.partial is not None
    assert caught.value.partial.text == stream.partial.text


@pytest.mark.parametrize("cloud", ["bedrock", "azure"])
def test_every_piece_before_the_break_is_given_and_iterating_on_raises_again(emulator: Emulator, cloud: str) -> None:
    emulator.script(Answer.truncated(Answer.text(chunks=WORDS)))
    provider: Any = BedrockProvider() if cloud == "bedrock" else AzureOpenAIProvider()
    given: list[str] = []

    stream = provider.generate_text_stream("Hi", model="claude" if cloud == "bedrock" else "chat")
    with pytest.raises(StreamTruncatedError) as first:
        given.extend(stream)
    with pytest.raises(StreamTruncatedError) as second:
        next(stream)

    assert given == list(WORDS)
    assert first.value is second.value
    assert first.value.partial is not None
    assert first.value.partial.text == "".join(WORDS)
    provider.close()


def test_an_error_before_the_first_event_is_the_typed_one(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.throttle(), Answer.throttle(inside_stream_after=0))
    once = bedrock.with_options(retry=None)

    with pytest.raises(RateLimitError), once.generate_text_stream("Hi"):
        pytest.fail("it was opened")
    with pytest.raises(RateLimitError):
        next(once.generate_text_stream("Hi"))


def test_a_blocked_answer_is_an_error_at_its_end_each_time(emulator: Emulator) -> None:
    emulator.script(Answer.content_filtered("Once upon"))

    with AzureOpenAIProvider() as azure, azure.generate_text_stream("Hi", "chat") as stream:
        with pytest.raises(ContentFilteredError) as caught:
            list(stream)
        with pytest.raises(ContentFilteredError):
            next(stream)

    assert caught.value.partial is not None
    assert caught.value.partial.text == "Once upon"


def test_collect_reads_to_the_end_from_anywhere(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(*[Answer.text(chunks=WORDS)] * 2)

    assert bedrock.chat_stream("Hi").collect().text == "".join(WORDS)
    with bedrock.generate_text_stream("Hi") as stream:
        next(stream)
        assert stream.collect().text == "".join(WORDS)
    assert stream.collect() == stream.response
    assert list(stream) == []


def test_a_batch_is_everything_that_is_there(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.text(chunks=WORDS))
    pieces: list[str] = []

    with bedrock.generate_text_stream("Hi") as stream:
        while batch := stream.next_batch():
            pieces += batch
            assert stream.partial.text == "".join(pieces)
        assert stream.next_batch() == []

    assert pieces == list(WORDS)


def test_leaving_early_frees_the_connection_and_the_task(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.stall(Answer.text(chunks=WORDS), after_events=4))

    with bedrock.generate_text_stream("Hi") as stream:
        for text in stream:
            assert text == "The"
            assert open_connections(bedrock) == 1
            break

    assert open_connections(bedrock) == 0
    assert not running_tasks()
    assert stream.partial.text == "The"
    assert next(stream, "over") in {*WORDS, "over"}


def test_a_stream_closed_before_it_was_opened_sends_nothing(bedrock: BedrockProvider, emulator: Emulator) -> None:
    stream = bedrock.generate_text_stream("Hi")
    stream.close()

    assert list(stream) == []
    with stream:
        assert list(stream) == []
    assert not emulator.requests


def test_a_dropped_stream_warns_with_the_line_that_made_it(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.stall(Answer.text(chunks=WORDS), after_events=4))
    stream = bedrock.generate_text_stream("Hi")
    next(stream)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stream
        gc.collect()

    assert [warning.category for warning in caught] == [ResourceWarning]
    assert str(caught[0].message).startswith(f"A TextStream made at {__file__}:")
    wait_until(lambda: open_connections(bedrock) == 0 and not running_tasks())


def test_streams_that_were_never_opened_or_read_to_the_end_do_not_warn(
    bedrock: BedrockProvider, emulator: Emulator
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bedrock.generate_text_stream("Hi")
        for _ in bedrock.generate_text_stream("Hi"):
            pass
        for _ in range(20):
            bedrock.chat_stream("Hi").collect()
        gc.collect()

    assert caught == []


def test_a_stream_dropped_by_an_unfinished_expression_is_closed(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.stall(Answer.text(chunks=WORDS), after_events=4))

    with pytest.warns(ResourceWarning, match="dropped before its end"):
        next(bedrock.generate_text_stream("Hi"))  # dropped as soon as it has given its first piece

    wait_until(lambda: open_connections(bedrock) == 0)


def test_two_threads_cannot_read_one_stream(bedrock: BedrockProvider, emulator: Emulator) -> None:
    emulator.script(Answer.stall(Answer.text(chunks=WORDS), after_events=4))
    outcomes: list[BaseException] = []

    with bedrock.generate_text_stream("Hi") as stream:

        def read() -> None:
            try:
                list(stream)
            except BaseException as error:
                outcomes.append(error)

        while stream.partial.text != "".join(WORDS[:3]):
            next(stream)
        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: stream._inner._reading)
        with pytest.raises(RuntimeError, match="read by another thread"):
            next(stream)
        assert stream.partial.text == "The quick brown", "asking does not disturb the reader"
        assert reader.is_alive()
        stream.close()
        reader.join(10)

    assert [type(outcome) for outcome in outcomes] == [StreamInterruptedError]


def test_one_task_and_one_context_run_a_whole_stream(emulator: Emulator) -> None:
    """Cancel scopes and context variables must not straddle tasks: opened, read and closed in the same one."""
    tasks: list[asyncio.Task[Any] | None] = []
    values: list[str] = []
    variable = contextvars.ContextVar("variable", default="")

    class Watched(apex_llm.TextStream):
        def note(self) -> None:
            tasks.append(asyncio.current_task())
            values.append(variable.get())
            variable.set("changed by the stream")

        async def __aenter__(self) -> Any:
            self.note()
            return await super().__aenter__()

        async def _wait_ready(self) -> bool:
            self.note()
            return await super()._wait_ready()

        async def aclose(self) -> None:
            self.note()
            await super().aclose()

    class Provider(apex_llm.BedrockProvider):
        def generate_text_stream(self, *args: Any, **options: Any) -> Any:
            stream = super().generate_text_stream(*args, **options)
            stream.__class__ = Watched
            return stream

    token = variable.set("the caller's")
    with SyncLlmProvider(Provider()).generate_text_stream("Hi", "claude") as stream:
        for _ in stream:
            break
    variable.reset(token)

    assert len(tasks) >= 3
    assert len(set(tasks)) == 1
    assert values == ["the caller's", *["changed by the stream"] * (len(values) - 1)]


def test_nothing_is_read_ahead_of_a_slow_consumer(bedrock: BedrockProvider, emulator: Emulator) -> None:
    """While the caller thinks, the loop rests: memory is bounded by the transport's own limit."""
    emulator.script(Answer.text(chunks=["x" * 1000] * 3000))

    with bedrock.generate_text_stream("Hi") as stream:
        next(stream)
        first = len(stream._inner._batch)
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), SHARED.start("test").loop).result()
        exchange = stream._inner._exchange._response._exchange
        assert len(stream._inner._batch) == first
        assert exchange.queued <= 1 << 20
        assert 1 + sum(1 for _ in stream) == 3000
