"""aiobotocore judges the emulator: the same wire over aiohttp."""

from typing import Any

import pytest
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import EventStreamError

from apex_llm.emulator import Answer, Emulator

pytestmark = pytest.mark.judge

CLAUDE = "us.anthropic.claude-sonnet-4-6"
HI = [{"role": "user", "content": [{"text": "Hi there"}]}]


def client_of(emulator: Emulator) -> Any:
    return get_session().create_client(
        "bedrock-runtime",
        endpoint_url=emulator.bedrock_url,
        region_name=emulator.region,
        aws_access_key_id=emulator.access_key_id,
        aws_secret_access_key=emulator.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


async def test_plain_stream_and_errors_pass(emulator: Emulator) -> None:
    async with client_of(emulator) as client:
        response = await client.converse(modelId=CLAUDE, messages=HI)
        stream = (await client.converse_stream(modelId=CLAUDE, messages=HI))["stream"]
        events = [event async for event in stream]
        emulator.script(Answer.throttle())
        with pytest.raises(client.exceptions.ThrottlingException):
            await client.converse(modelId=CLAUDE, messages=HI)
        emulator.script(Answer.throttle(inside_stream_after=1))
        broken = (await client.converse_stream(modelId=CLAUDE, messages=HI))["stream"]
        with pytest.raises(EventStreamError):
            async for _ in broken:
                pass
        broken.close()

    assert response["output"]["message"]["content"] == [{"text": "You said: Hi there"}]
    assert [next(iter(event)) for event in events][-2:] == ["messageStop", "metadata"]
