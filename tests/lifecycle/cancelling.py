"""Cancelling calls and streams at every place at which they wait, and counting what is left."""

from __future__ import annotations

__all__ = ["Rig", "at_await", "random_cancellations"]

import asyncio
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from random import Random
from typing import Any, Self

import httpx2

from apex_llm import ApexLlmError, AzureOpenAIProvider, BedrockProvider, Limits, Timeout

Operation = Callable[[], Coroutine[Any, Any, object]]

CALLS_AT_ONCE = 16
SLOTS = 6
"""Fewer than calls, so that some are cancelled in the queue."""


@types.coroutine
def at_await(coroutine: Coroutine[Any, Any, object], number: int) -> Generator[Any, Any, bool]:
    """Run ``coroutine`` and cancel the running task at its await of this number; whether it came to that."""
    awaits = 0
    error: BaseException | None = None
    while True:
        try:
            waiting = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration:
            return awaits > number
        error = None
        task = asyncio.current_task()
        assert task is not None
        if awaits == number:
            task.cancel()
        awaits += 1
        try:
            yield waiting
        except BaseException as raised:
            error = raised


class Rig:
    """Both providers over both senders, with a gate in front; made and used on one event loop."""

    def __init__(self, environment: Mapping[str, str], *, slots: int = SLOTS) -> None:
        aws = {
            "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        }
        url = environment["AZURE_OPENAI_ENDPOINT"]
        usual: dict[str, Any] = {"trust_env": False, "timeout": Timeout(total=30.0)}
        bedrock: dict[str, Any] = {"credentials": aws, "aws_region": "us-east-1", "endpoint_url": url, **usual}
        azure: dict[str, Any] = {
            "api_base": url,
            "api_version": "2024-10-21",
            "api_key": environment["AZURE_OPENAI_API_KEY"],
            "default_deployment": "chat",
            **usual,
        }
        # httpx itself cannot take part: cancelled in one of two places, httpcore keeps a connection until the client
        # is closed (its issues 658 and 1093). httpx2 does not.
        self.client = httpx2.AsyncClient(trust_env=False)
        self.background: set[asyncio.Task[Any]] = set()
        """Tasks that are not the rig's."""
        self.limits = Limits(max_concurrency=slots)
        self.providers: dict[str, Any] = {
            "bedrock-http11": BedrockProvider(default_model="claude", limits=self.limits, **bedrock),
            "azure-http11": AzureOpenAIProvider(limits=self.limits, **azure),
            "azure-httpx2": AzureOpenAIProvider(limits=self.limits, http_client=self.client, **azure),
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for provider in self.providers.values():
            await provider.aclose()
        await self.client.aclose()
        await asyncio.sleep(0.01)

    @property
    def connections(self) -> tuple[int, int]:
        """Of our own sender: open, and idle."""
        senders = [
            sender
            for provider in self.providers.values()
            for sender in provider._backend._senders.values()
            if hasattr(sender, "open_connections")
        ]
        return sum(sender.open_connections for sender in senders), sum(sender.idle_connections for sender in senders)

    @property
    def busy(self) -> list[str]:
        """What is still going on; empty when the rig is at rest."""
        others = asyncio.all_tasks() - self.background - {asyncio.current_task()}
        found = [f"task {task!r}" for task in others]
        is_open, idle = self.connections
        if is_open != idle:
            found.append(f"{is_open - idle} connections are lent out")
        pool = self.client._transport._pool.connections
        found += [f"httpx2: {item}" for item in pool if not item.is_idle() and not item.is_closed()]
        for key, model in self.limits.snapshot()["models"].items():
            found += [f"{key}: {model[name]} {name}" for name in ("active", "waiting") if model[name]]
        return found

    async def come_to_rest(self, *, seconds: float = 5.0) -> None:
        """Raises what is left when it does not."""
        deadline = asyncio.get_running_loop().time() + seconds
        while busy := self.busy:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(busy)
            await asyncio.sleep(0.002)

    def operations(self, name: str) -> dict[str, Operation]:
        """What can be cancelled, by name."""
        provider = self.providers[name]

        async def call() -> None:
            await provider.generate_text("Hi")

        async def retried_call() -> None:
            await provider.generate_text("throttle")

        async def stream() -> None:
            async with provider.generate_text_stream("text 6 0.001") as texts:
                async for _ in texts:
                    await asyncio.sleep(0)

        async def left_early() -> None:
            async with provider.chat_stream("stall 4") as events:
                async for _ in events:
                    break

        async def bare_stream() -> None:
            async for _ in provider.generate_text_stream("text 3 0"):
                pass

        async def broken_stream() -> None:
            await provider.chat_stream("reset 4 0.001").collect()

        async def listing() -> None:
            await provider.get_available_models()

        made = (call, retried_call, stream, left_early, bare_stream, broken_stream, listing)
        return {operation.__name__: operation for operation in made}


async def _after_turns(awaited: Awaitable[object], turns: int) -> object:
    """Cancel from outside, between any two steps of the loop: also when a result is there and was not taken yet."""
    task = asyncio.ensure_future(awaited)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    return await task


async def random_cancellations(rig: Rig, count: int, *, seed: int) -> Counter[str]:
    """``count`` operations, each cancelled somewhere; how they ended. Between rounds everything is at rest."""
    dice = Random(seed)
    outcomes: Counter[str] = Counter()
    choices = [operation for name in rig.providers for operation in rig.operations(name).values()]
    while (done := outcomes.total()) < count:
        doomed: list[Coroutine[Any, Any, object]] = []
        for _ in range(min(CALLS_AT_ONCE, count - done)):
            operation = dice.choice(choices)
            if dice.random() < 0.5:
                doomed.append(_awaiting(at_await(operation(), dice.randrange(16))))
            else:
                doomed.append(_after_turns(operation(), dice.choice((0, 1, 2, 3, 5, 8, 13, 40, 200, 1000))))
        ends = await asyncio.gather(*doomed, return_exceptions=True)
        for end in ends:
            if isinstance(end, asyncio.CancelledError):
                outcomes["cancelled"] += 1
            elif isinstance(end, ApexLlmError):
                outcomes[type(end).__name__] += 1
            elif isinstance(end, BaseException):
                raise end
            else:
                outcomes["finished"] += 1
        del ends, end
        await rig.come_to_rest()
    return outcomes


async def _awaiting(awaitable: Awaitable[object]) -> object:
    return await awaitable
