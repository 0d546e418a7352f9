"""What a process loads until its first answer: nothing that the answer does not need.

How many modules that are, of everybody's, is counted in ``tests/work``. Here stands which ones must never be
among them again, as each costs a millisecond or more, or belongs to a path that was not taken.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

_CONVERSE = (
    b'{"output":{"message":{"role":"assistant","content":[{"text":"hello"}]}},"stopReason":"end_turn",'
    b'"usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2}}'
)
_COMPLETION = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
_BEDROCK = "BedrockProvider(endpoint_url=url, aws_region='us-east-1')"
_AZURE = "AzureOpenAIProvider(api_base=url, api_version='2024-10-21', api_key='k')"
_ASYNC = """
url = "http://127.0.0.1:" + sys.argv[1]
import asyncio
from apex_llm import {name}
async def main():
    async with {provider} as provider:
        return await provider.generate_text("Hi", "some.model")
answer = asyncio.run(main())
"""
_SYNC = """
url = "http://127.0.0.1:" + sys.argv[1]
from apex_llm.sync import {name}
answer = {provider}.generate_text("Hi", "some.model")
"""
FORBIDDEN_EVERYWHERE = {
    # Other people's.
    *("anyio", "botocore", "boto3", "aiobotocore", "azure", "httpx", "httpx2", "httpcore", "certifi", "pydantic"),
    *("pydantic_core", "pyrage", "keyring", "cryptography", "uvloop"),
    # The standard library's, which asyncio and msgspec do well without.
    *("configparser", "copy", "dataclasses", "difflib", "email", "fnmatch", "html", "http", "importlib.metadata"),
    *("ipaddress", "json", "logging.config", "logging.handlers", "pathlib", "shlex", "tempfile", "urllib.parse"),
    *("urllib.request", "xml"),
    # Ours, for what was not asked for: streams, limits, proxies, keys, tools, errors of a stream, other sources.
    *("apex_llm.codecs.chat.anthropic_messages", "apex_llm.codecs.chat.bedrock_converse.stream"),
    *("apex_llm.codecs.chat.openai_chat_stream", "apex_llm.codecs.failures", "apex_llm.codecs.framing"),
    *("apex_llm.codecs.replay", "apex_llm.codecs.strict", "apex_llm.credentials.aws_chain"),
    *("apex_llm.credentials.aws_files", "apex_llm.credentials.aws_metadata", "apex_llm.credentials.azure_entra"),
    *("apex_llm.credentials.azure_managed", "apex_llm.credentials.http", "apex_llm.credentials.manager"),
    *("apex_llm.emulator", "apex_llm.keys", "apex_llm.protocol.eventstream", "apex_llm.protocol.sse"),
    *("apex_llm.providers.azure_openai.listings", "apex_llm.providers.bedrock.control_plane"),
    *("apex_llm.providers.metering", "apex_llm.tools", "apex_llm.transport.gate", "apex_llm.transport.httpx_sender"),
}
OTHER_CLOUD = {
    "BedrockProvider": {"apex_llm.providers.azure_openai", "apex_llm.codecs.chat.openai_chat"},
    "AzureOpenAIProvider": {
        *("apex_llm.providers.bedrock", "apex_llm.codecs.chat.bedrock_converse", "apex_llm.protocol.eventstream"),
        *("apex_llm.credentials.aws", "apex_llm.codecs.bedrock_failures"),
    },
}
MOST_OF_OURS = {_ASYNC: 77, _SYNC: 86}


@pytest.fixture
def port() -> Iterator[int]:
    """A service that answers every request at once, in the format of its path."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(65536)
                body = _COMPLETION if b"/openai/" in request else _CONVERSE
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):  # wakes the thread, where the system does that
            listener.shutdown(socket.SHUT_RDWR)


def _loaded(program: str, *arguments: str) -> set[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "AZURE_", "COVERAGE_"))}
    environ |= {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def unavoidable() -> set[str]:
    """What asyncio and our two dependencies load by themselves, which differs between versions."""
    return _loaded("import asyncio, httptools, msgspec")


@pytest.mark.parametrize("program", [_ASYNC, _SYNC], ids=["async", "sync"])
@pytest.mark.parametrize(("name", "provider"), [("BedrockProvider", _BEDROCK), ("AzureOpenAIProvider", _AZURE)])
def test_a_first_answer_loads_nothing_that_it_does_not_need(
    program: str, name: str, provider: str, port: int, unavoidable: set[str]
) -> None:
    loaded = _loaded(program.format(name=name, provider=provider) + "assert answer == 'hello', answer", str(port))

    needless = (loaded - unavoidable) & (FORBIDDEN_EVERYWHERE | OTHER_CLOUD[name])
    assert not needless, sorted(needless)
    ours = sorted(module for module in loaded if module.partition(".")[0] == "apex_llm")
    assert len(ours) <= MOST_OF_OURS[program], ours
