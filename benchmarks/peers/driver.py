"""One client, driven by lines of JSON: ``python benchmarks/peers/driver.py CLIENT`` in that client's environment.

Each line on standard input is a call; each line on standard output says what its caller saw. A call runs in a
process of its own, forked after the client's package is imported, and is killed if it takes too long. Nothing here
judges what was seen, and nothing is imported but the standard library and the client.
"""

from __future__ import annotations

__all__ = ["CLIENTS", "main"]

import asyncio
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

_PROMPT = "Hi there"
_MESSAGES = [{"role": "user", "content": _PROMPT}]
_CLAUDE = "us.anthropic.claude-sonnet-4-6"
_OPUS = "us.anthropic.claude-opus-4-8"
_DEPLOYMENT = "gpt-4o"
_MAX_TOKENS = 100
_WARM_SECONDS = 60.0

Given: TypeAlias = Mapping[str, Any]
"""``url``, ``api_version`` and the keys; ``call`` (whole or stream), ``retries`` and ``timeout`` in seconds."""
Client: TypeAlias = Callable[[Given, list[str]], Awaitable[object]]
"""Makes the call, adds the text to the list as it comes, and gives the reason why the answer ended, if any."""


async def _ours(provider: Any, model: str, given: Given, pieces: list[str]) -> object:
    async with provider:
        if given["call"] == "whole":
            answer = await provider.chat(_PROMPT, model=model, max_tokens=_MAX_TOKENS)
            pieces.append(answer.text)
            return answer.finish_reason
        async with provider.generate_text_stream(_PROMPT, model, max_tokens=_MAX_TOKENS) as stream:
            async for piece in stream:
                pieces.append(piece)  # noqa: PERF401 # what came before an error counts
        return stream.response.finish_reason


def _our_policies(given: Given) -> dict[str, Any]:
    from apex_llm import RetryPolicy, Timeout

    seconds = given["timeout"]
    timed = given["call"] == "whole" and not given["retries"]
    return {
        "timeout": Timeout(connect=seconds, first_byte=seconds, idle=seconds, total=seconds if timed else 60),
        "retry": RetryPolicy(max_attempts=1 + given["retries"]),
    }


async def apex_llm_bedrock(given: Given, pieces: list[str]) -> object:
    from apex_llm import BedrockProvider

    provider = BedrockProvider(
        endpoint_url=given["url"],
        aws_region=given["region"],
        credentials={
            "aws_access_key_id": given["access_key_id"],
            "aws_secret_access_key": given["secret_access_key"],
        },
        **_our_policies(given),
    )
    return await _ours(provider, _CLAUDE, given, pieces)


async def apex_llm_azure(given: Given, pieces: list[str]) -> object:
    from apex_llm import AzureOpenAIProvider

    provider = AzureOpenAIProvider(
        api_base=given["url"],
        api_version=given["api_version"],
        api_key=given["api_key"],
        **_our_policies(given),
    )
    return await _ours(provider, _DEPLOYMENT, given, pieces)


async def boto3(given: Given, pieces: list[str]) -> object:
    import boto3
    from botocore.config import Config

    retries = {"total_max_attempts": 1 + given["retries"], "mode": "standard"}
    client = boto3.Session().client(
        "bedrock-runtime",
        endpoint_url=given["url"],
        region_name=given["region"],
        aws_access_key_id=given["access_key_id"],
        aws_secret_access_key=given["secret_access_key"],
        config=Config(connect_timeout=given["timeout"], read_timeout=given["timeout"], retries=retries),
    )
    arguments = {
        "modelId": _CLAUDE,
        "messages": [{"role": "user", "content": [{"text": _PROMPT}]}],
        "inferenceConfig": {"maxTokens": _MAX_TOKENS},
    }
    if given["call"] == "whole":
        answer = client.converse(**arguments)
        pieces.append(answer["output"]["message"]["content"][0]["text"])
        return answer["stopReason"]
    reason = None
    for event in client.converse_stream(**arguments)["stream"]:
        if "contentBlockDelta" in event:
            pieces.append(event["contentBlockDelta"]["delta"].get("text", ""))
        elif "messageStop" in event:
            reason = event["messageStop"]["stopReason"]
    return reason


async def anthropic(given: Given, pieces: list[str]) -> object:
    from anthropic import AsyncAnthropicBedrock

    async with AsyncAnthropicBedrock(
        base_url=given["url"],
        aws_region=given["region"],
        aws_access_key=given["access_key_id"],
        aws_secret_key=given["secret_access_key"],
        max_retries=given["retries"],
        timeout=given["timeout"],
    ) as client:
        arguments: dict[str, Any] = {"model": _OPUS, "max_tokens": _MAX_TOKENS, "messages": _MESSAGES}
        if given["call"] == "whole":
            message = await client.messages.create(**arguments)
            pieces.append(message.content[0].text)
            return message.stop_reason
        async with client.messages.stream(**arguments) as stream:
            async for piece in stream.text_stream:
                pieces.append(piece)  # noqa: PERF401 # as above
            return (await stream.get_final_message()).stop_reason


async def openai(given: Given, pieces: list[str]) -> object:
    from openai import AsyncAzureOpenAI

    async with AsyncAzureOpenAI(
        azure_endpoint=given["url"],
        api_key=given["api_key"],
        api_version=given["api_version"],
        max_retries=given["retries"],
        timeout=given["timeout"],
    ) as client:
        arguments: dict[str, Any] = {"model": _DEPLOYMENT, "max_tokens": _MAX_TOKENS, "messages": _MESSAGES}
        return await _chat_completions(client.chat.completions.create, arguments, given, pieces)


async def litellm_bedrock(given: Given, pieces: list[str]) -> object:
    return await _litellm(
        given,
        pieces,
        model=f"bedrock/converse/{_CLAUDE}",
        aws_bedrock_runtime_endpoint=given["url"],
        aws_region_name=given["region"],
        aws_access_key_id=given["access_key_id"],
        aws_secret_access_key=given["secret_access_key"],
    )


async def litellm_azure(given: Given, pieces: list[str]) -> object:
    return await _litellm(
        given,
        pieces,
        model=f"azure/{_DEPLOYMENT}",
        api_base=given["url"],
        api_key=given["api_key"],
        api_version=given["api_version"],
    )


async def _litellm(given: Given, pieces: list[str], **arguments: Any) -> object:
    import litellm

    arguments |= {
        "messages": _MESSAGES,
        "max_tokens": _MAX_TOKENS,
        "timeout": given["timeout"],
        "num_retries": given["retries"],
    }
    if not given["retries"]:
        arguments["max_retries"] = 0  # else the client underneath retries of its own accord
    return await _chat_completions(litellm.acompletion, arguments, given, pieces)


async def _chat_completions(create: Any, arguments: dict[str, Any], given: Given, pieces: list[str]) -> object:
    """The interface that openai has and litellm copies."""
    if given["call"] == "whole":
        choice = (await create(**arguments)).choices[0]
        pieces.append(choice.message.content)
        return choice.finish_reason
    reason = None
    async for chunk in await create(**arguments, stream=True):
        if chunk.choices:
            pieces.append(chunk.choices[0].delta.content or "")
            reason = chunk.choices[0].finish_reason or reason
    return reason


CLIENTS: Mapping[str, tuple[str, Client]] = {
    "apex_llm/bedrock": ("apex_llm", apex_llm_bedrock),
    "apex_llm/azure": ("apex_llm", apex_llm_azure),
    "boto3/bedrock": ("boto3", boto3),
    "anthropic/bedrock": ("anthropic", anthropic),
    "openai/azure": ("openai", openai),
    "litellm/bedrock": ("litellm", litellm_bedrock),
    "litellm/azure": ("litellm", litellm_azure),
}
"""Name to the package that is imported before the first call, and the call."""


async def _seen(client: Client, given: Given, warmed: Callable[[], None]) -> dict[str, Any]:
    """What the caller saw: the text, and how it ended. A good call goes first, so that imports are not timed."""
    try:
        await client(given, [])
    except Exception as error:
        return {"unusable": f"{type(error).__name__}: {str(error)[:300]}"}
    warmed()
    pieces: list[str] = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    seen: dict[str, Any] = {}
    try:
        reason = await client(given, pieces)
        seen["reason"] = None if reason is None else str(reason)
    except Exception as error:
        seen["error"] = type(error).__name__
        seen["modules"] = [parent.__module__ for parent in type(error).__mro__]
        seen["given"] = _raised_here(error)
    seen["seconds"] = round(time.monotonic() - began, 2)
    seen["mebibytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    seen["text"] = "".join(piece for piece in pieces if piece)
    return seen


def _raised_here(error: BaseException) -> bool:
    """Whether the client gave an answer without an error, and this file found nothing in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == __file__


def _in_fork(client: Client, given: Given) -> dict[str, Any]:
    """What a call in a process of its own saw; ``hangs`` if it had to be killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever a client prints must not reach the pipe that the answers go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            seen = asyncio.run(_seen(client, given, lambda: _write(writing, b"\n")))
            _write(writing, json.dumps(seen).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        data = _read(reading, _WARM_SECONDS)
        if data == b"\n":
            data = _read(reading, given["kill_after"])
        if data is None:
            return {"hangs": True}
        return json.loads(data) if data else {"crashed": True}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def _write(pipe: int, data: bytes) -> None:
    os.write(pipe, data)


def _read(pipe: int, seconds: float) -> bytes | None:
    """One write, all of which a pipe holds at once; nothing if the writer ended, ``None`` if it is late."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    return os.read(pipe, 1 << 16) if ready else None


def main(name: str) -> None:
    """Serve calls until standard input ends; the first line that is written is the package's version."""
    import importlib
    import importlib.metadata

    package, client = CLIENTS[name]
    importlib.import_module(package)
    distribution = package.replace("_", "-")
    print(json.dumps({"version": importlib.metadata.version(distribution)}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_in_fork(client, json.loads(line))), flush=True)


if __name__ == "__main__":
    # A file of this directory must not pass for a package of the same name.
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    main(sys.argv[1])
