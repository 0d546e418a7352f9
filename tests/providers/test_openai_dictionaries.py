"""Messages as people have them for other clients: nothing in them is lost without a word."""

from __future__ import annotations

import json

import pytest

from apex_llm import BedrockProvider, InvalidRequestError
from apex_llm.emulator import Emulator


async def test_a_cache_mark_in_a_part_becomes_a_cache_point_behind_it(emulator: Emulator) -> None:
    """Dropped silently, it made every call cost as much as the first."""
    mark = {"type": "ephemeral", "ttl": "1h"}
    async with BedrockProvider() as bedrock:
        await bedrock.chat(
            [
                {"role": "system", "content": [{"type": "text", "text": "Long.", "cache_control": mark}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
                        {"type": "text", "text": "Two."},
                    ],
                },
            ],
            model="claude",
        )

    body = json.loads(emulator.requests[0].body)
    assert body["system"] == [{"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert body["messages"][0]["content"] == [{"text": "One."}, {"cachePoint": {"type": "default"}}, {"text": "Two."}]


async def test_a_cache_mark_that_is_none_is_refused(emulator: Emulator) -> None:
    async with BedrockProvider() as bedrock:
        with pytest.raises(InvalidRequestError, match="cache_control"):
            await bedrock.chat(
                [{"role": "user", "content": [{"type": "text", "text": "One.", "cache_control": "yes"}]}],
                model="claude",
            )

    assert emulator.requests == []
