"""Rows 9 to 18: the response's head, and connections between two answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import httpx
import pytest
from fault_cases import FULL_TEXT, IMPOSSIBLE, Column, make, observe

from apex_llm import ApexLlmError
from apex_llm.emulator import Emulator


def test_row_09_a_reset_or_an_end_before_the_head_is_retried(play: Any) -> None:
    play("reset-before-head")
    play("close-before-head")


def test_row_10_a_reset_inside_the_head_is_retried(play: Any) -> None:
    play("reset-in-head")


def test_row_11_an_end_inside_the_head_is_retried_and_never_an_empty_answer(play: Any) -> None:
    play("close-in-head")


def test_row_12_a_header_without_end_is_refused_at_64_kib(play: Any, frugal: Any) -> None:
    play("endless-header")
    for call in ("whole", "stream"):
        assert frugal("endless-header", call).error == "LimitExceededError"


def test_row_13_too_many_headers_are_refused(play: Any) -> None:
    play("too-many-headers")


def test_row_14_interim_answers_without_end_are_refused(play: Any) -> None:
    play("interim-flood")


def test_row_15_a_length_beside_a_transfer_coding_is_refused(play: Any) -> None:
    play("length-and-chunked")


def test_row_16_two_lengths_are_refused(play: Any) -> None:
    play("two-lengths")


@pytest.mark.parametrize("fault", ["length-and-chunked", "two-lengths", "glued-answer", "bad-chunk-end"])
@pytest.mark.parametrize("call", ["whole", "stream"])
def test_rows_15_16_18_20_a_connection_in_doubt_is_never_used_again(
    emulator: Emulator, column: Column, fault: str, call: str
) -> None:
    """The next call over the same provider gets its own answer, not what was left on the wire."""
    if (fault, column.sender) in IMPOSSIBLE:
        pytest.skip(IMPOSSIBLE[fault, column.sender])
    emulator.fault(fault, FULL_TEXT)
    emulator.script("Mine.", "And mine.")

    async def calls() -> list[str]:
        client = httpx.AsyncClient(trust_env=False) if column.sender == "httpx" else None
        async with make(column, emulator=emulator, client=client, retry=None) as provider:
            if call == "whole":
                await asyncio.gather(provider.generate_text("Hi"), return_exceptions=True)
            else:
                await asyncio.gather(provider.generate_text_stream("Hi").collect(), return_exceptions=True)
            answers = [await provider.generate_text("Hi"), await provider.generate_text("Hi")]
        if client is not None:
            await client.aclose()
        return answers

    def blocking_calls() -> list[str]:
        with make(column, emulator=emulator, retry=None) as provider:
            with contextlib.suppress(ApexLlmError):
                if call == "whole":
                    provider.generate_text("Hi")
                else:
                    provider.generate_text_stream("Hi").collect()
            return [provider.generate_text("Hi"), provider.generate_text("Hi")]

    answers = blocking_calls() if column.twin == "sync" else asyncio.run(calls())
    assert answers == ["Mine.", "And mine."]
    assert len(emulator.requests) == 3


def test_row_17_a_connection_that_was_closed_while_idle_costs_no_attempt(emulator: Emulator, column: Column) -> None:
    observation = observe(emulator, column, "closed-while-idle", "whole", times=1)
    assert observation.text == FULL_TEXT
    emulator.reset()
    for _ in range(3):
        emulator.fault("closed-while-idle", FULL_TEXT)

    async def calls() -> list[Any]:
        client = httpx.AsyncClient(trust_env=False) if column.sender == "httpx" else None
        answers = []
        async with make(column, emulator=emulator, client=client, retry=None) as provider:
            for _ in range(3):
                answers.append(await provider.chat("Hi"))
                await asyncio.sleep(0.02)  # the end must have arrived: what is raced is the next test's matter
        if client is not None:
            await client.aclose()
        return answers

    def blocking_calls() -> list[Any]:
        answers = []
        with make(column, emulator=emulator, retry=None) as provider:
            for _ in range(3):
                answers.append(provider.chat("Hi"))
                time.sleep(0.02)
        return answers

    answers = blocking_calls() if column.twin == "sync" else asyncio.run(calls())
    assert [(answer.text, answer.attempts) for answer in answers] == [(FULL_TEXT, 1)] * 3


def test_row_18_a_second_answer_that_nobody_asked_for_is_never_seen(play: Any) -> None:
    for observation in play("glued-answer"):
        assert observation.text == FULL_TEXT
