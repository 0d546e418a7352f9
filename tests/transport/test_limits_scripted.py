"""Twenty callers and a service that allows a thousand tokens a minute, on a virtual clock.

The service counts in one of three ways, as real ones do: a counter that is reset each minute, the last
sixty seconds, or a bucket that fills up continuously.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque

import msgspec
import pytest
from transport_doubles import FakeResponse, failure, now, request_for, run_virtually

from apex_llm.errors import RateLimitError
from apex_llm.transport.classify import ClassifyLayer
from apex_llm.transport.limits import Limits
from apex_llm.transport.pipeline import compose
from apex_llm.transport.retry import RetryPolicy, run_attempts
from apex_llm.types.responses import Usage

CEILING = 1000
SECONDS = 60.0
CALLERS = 20
PROMPT, ANSWER = 8, 20
BODY = b'{"messages":[{"role":"user"}],"max_tokens":20}'  # estimated at 32, charged 28
KINDS = ["minute", "window", "bucket"]


class Service:
    """Allows ``CEILING`` tokens a minute, and charges prompt and ``max_tokens`` at admission."""

    def __init__(self, kind: str, *, retry_after: bool = True, headers: str | None = None, begins: float = 0.0) -> None:
        self.kind = kind
        self.retry_after = retry_after
        self.headers = headers
        self.begins = begins  # when the service's own minutes begin
        self.chance = random.Random(5)
        self.admitted: deque[tuple[float, int]] = deque()
        self.sends = self.refusals = self.tokens = 0
        self.times: list[float] = []
        # A bucket that begins full allows nearly twice the limit in the first minute: no figure to measure by.
        self.level, self.at = CEILING / 6, 0.0

    def _left(self) -> float:
        if self.kind == "bucket":
            self.level = min(CEILING, self.level + (now() - self.at) * CEILING / 60)
            self.at = now()
            return self.level
        start = now() - 60
        if self.kind == "minute":
            start = (now() - self.begins) // 60 * 60 + self.begins
        return CEILING - sum(cost for at, cost in self.admitted if at >= start and at > now() - 60)

    def _reset(self, cost: int) -> float:
        if self.kind == "bucket":
            return (cost - self.level) * 60 / CEILING
        if self.kind == "minute":
            return 60 - (now() - self.begins) % 60
        return self.admitted[0][0] + 60 - now()

    async def __call__(self, request) -> FakeResponse:
        await asyncio.sleep(self.chance.uniform(0.01, 0.1))
        cost = PROMPT + ANSWER
        self.sends += 1
        self.times.append(now())
        left = self._left()
        headers = {}
        if left < cost:
            self.refusals += 1
            if self.retry_after:
                headers["retry-after"] = str(int(self._reset(cost)) + 1)
            if self.headers == "old":
                del headers["retry-after"]
                headers["policy-id"] = "DeploymentRatelimit-Token"
                headers["x-rate-limit-reset-tokens"] = str(int(self._reset(cost)) + 1)
            return FakeResponse(429, headers | self._told(left))
        while self.admitted and self.admitted[0][0] < now() - 120:
            self.admitted.popleft()
        self.admitted.append((now(), cost))
        self.level -= cost
        self.tokens += cost
        await asyncio.sleep(self.chance.uniform(0.1, 0.8))
        return FakeResponse(200, self._told(left - cost))

    def _told(self, left: float) -> dict[str, str]:
        if self.headers not in {"dated", "v1"}:
            return {}
        told = {"x-ratelimit-remaining-tokens": str(int(left)), "x-ratelimit-remaining-requests": "99"}
        if self.headers == "v1":
            told |= {"x-ratelimit-limit-tokens": str(CEILING), "x-ratelimit-limit-requests": "600"}
            told |= {"x-ratelimit-reset-tokens": str(int(60 - now() % 60)), "x-ratelimit-reset-requests": "1"}
        return told


class Callers:
    """Twenty of them, each asking again as soon as it has its answer."""

    def __init__(self, service: Service, limits: Limits | None, *, seconds: float = SECONDS) -> None:
        self.limits = limits
        layers = () if limits is None else limits.layers()
        self.send = compose([ClassifyLayer(failure), *layers], service)
        self.seconds = seconds
        self.waits: list[float] = []
        self.answers: Counter[int] = Counter()

    async def _attempt(self, number: int) -> None:
        request = request_for(body=BODY, attempt=number)
        if self.limits is not None:
            request = msgspec.structs.replace(request, estimated_tokens=self.limits.estimated_tokens(request))
        response = await self.send(request)
        response.close()
        if self.limits is not None:
            usage = Usage(input_tokens=PROMPT, output_tokens=ANSWER)
            self.limits.settle(request, usage, at_admission=True)

    async def _caller(self, name: int) -> None:
        policy = RetryPolicy(max_attempts=1000, random=random.Random(name).random)
        while now() < self.seconds:
            started = now()
            self.started[name] = started
            if self.limits is None:
                while True:
                    try:
                        await self._attempt(1)
                        break
                    except RateLimitError:
                        await asyncio.sleep(1)
            else:
                await run_attempts(self._attempt, policy=policy, quota=None)
            self.waits.append(now() - started)
            self.answers[name] += 1
            self.started.pop(name)

    async def run(self) -> None:
        self.started: dict[int, float] = {}
        tasks = [asyncio.create_task(self._caller(name)) for name in range(CALLERS)]
        await asyncio.sleep(self.seconds)
        self.waits += [now() - started for started in self.started.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def play(service: Service, limits: Limits | None, *, seconds: float = SECONDS) -> Callers:
    callers = Callers(service, limits, seconds=seconds)
    run_virtually(callers.run())
    return callers


def assert_fair_and_full(service: Service, callers: Callers, *, refused: float = 0.1) -> None:
    """The three figures, and that nobody starves."""
    assert service.refusals <= refused * service.sends
    assert service.tokens >= 0.9 * CEILING * callers.seconds / 60
    assert max(callers.waits) <= 3 * sum(callers.waits) / len(callers.waits)
    assert len(callers.answers) == CALLERS
    assert min(callers.answers.values()) >= 0.7 * max(callers.answers.values()) - 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_naive_client_is_refused_most_of_the_time(kind: str):
    service = Service(kind)
    play(service, None)
    assert service.refusals > 0.8 * service.sends


@pytest.mark.parametrize("begins", [0.0, 17.0, 45.0])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_limit_given_hardly_anything_is_refused_and_nothing_is_wasted(kind: str, begins: float):
    service = Service(kind, begins=begins)
    callers = play(service, Limits(tokens_per_minute=CEILING))

    assert service.refusals == 0
    assert_fair_and_full(service, callers)
    assert max(callers.answers.values()) - min(callers.answers.values()) <= 1


@pytest.mark.parametrize("headers", ["dated", "v1"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_headers_of_the_service_nothing_needs_to_be_given(kind: str, headers: str):
    service = Service(kind, headers=headers)
    service.level = CEILING
    callers = play(service, Limits(learn=True))

    assert service.refusals == 0
    assert_fair_and_full(service, callers)


@pytest.mark.parametrize("told", [None, "retry-after", "old"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_helpful_headers_the_limit_is_learned_from_refusals(kind: str, told: str | None):
    """The first minute pays for it: what is under way when the first refusal comes is refused as well."""
    minute = Service(kind, headers="old" if told == "old" else None, retry_after=told is not None)
    minute.level = CEILING
    assert_fair_and_full(minute, play(minute, Limits(learn=True)))

    service = Service(kind, headers="old" if told == "old" else None, retry_after=told is not None)
    service.level = CEILING
    assert_fair_and_full(service, play(service, Limits(learn=True), seconds=600), refused=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_that_is_lowered_and_raised_again_is_followed(kind: str):
    service = Service(kind)
    service.level = CEILING
    allowed = service._left
    service._left = lambda: allowed() - (CEILING / 2 if 240 <= now() < 480 else 0)
    play(service, Limits(learn=True), seconds=900)

    assert service.refusals <= 0.1 * service.sends
    assert service.tokens >= 0.7 * CEILING * (4 + 4 / 2 + 7)


@pytest.mark.parametrize("kind", KINDS)
def test_over_ten_minutes_the_ceiling_is_used_and_respected(kind: str):
    service = Service(kind, begins=17.0)
    callers = play(service, Limits(tokens_per_minute=CEILING), seconds=600)

    assert service.refusals == 0
    assert service.tokens >= 0.9 * CEILING * 10
    assert max(callers.waits) <= 3 * sum(callers.waits) / len(callers.waits)


def test_requests_per_minute_are_kept():
    service = Service("bucket")
    service._left = lambda: 1e9
    play(service, Limits(requests_per_minute=30), seconds=300)

    for start in service.times:
        assert sum(start <= at < start + 60 for at in service.times) <= 30
    assert len(service.times) >= 0.9 * 150


def test_a_limit_that_others_use_too_is_found_out():
    """Told a limit that is twice too high, the limiter lets itself be told by refusals and remainders."""
    service = Service("minute", headers="dated")
    play(service, Limits(tokens_per_minute=2 * CEILING, learn=True), seconds=300)

    assert service.refusals <= 0.1 * service.sends
    assert service.tokens >= 0.9 * CEILING * 5
