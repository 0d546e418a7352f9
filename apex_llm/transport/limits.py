"""What calls to one endpoint and model share: retry quota, buckets, concurrency, breaker.

The quota keeps retries from multiplying the load on a service that is down. Its figures are
those of the AWS SDKs' standard retry mode: 500 tokens, 14 for a retry after a transient
failure, 5 after throttling, a successful retry gives back what it cost, and a call that
succeeds at once gives one. Whether to retry is ``retry``'s decision; this only keeps count.

Everything else holds requests back before they are sent; ``gate`` puts it together.
"""

from __future__ import annotations

__all__ = ["Limits"]

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from apex_llm.errors import ApexLlmError
from apex_llm.transport.breaker import BreakerPolicy
from apex_llm.transport.gate_options import GateOptions
from apex_llm.types.http import HttpRequest
from apex_llm.types.responses import Usage

# The gate and all that is behind it are imported when something but the retry quota is switched on.
if TYPE_CHECKING:
    from apex_llm.transport.gate import Gate, GateLeave
    from apex_llm.transport.throttle import ThrottleLayer

Key: TypeAlias = tuple[str, str]
"""Endpoint, and model or deployment."""

_USUAL_QUOTA: Final = 500
_TRANSIENT_COST: Final = 14
_THROTTLE_COST: Final = 5
_MAX_KEYS: Final = 1000
_FIRST_CONCURRENCY: Final = 10


class _Model:
    """What is kept for one key."""

    __slots__ = ("estimate", "gate")

    def __init__(self, gate: Gate) -> None:
        from apex_llm.transport.estimate import TokenEstimate

        self.gate = gate
        self.estimate = TokenEstimate()


class Limits:
    """Shared bookkeeping of one provider, or of several that are given the same object.

    Kept for each endpoint and model. May be used from any number of event loops and threads. Parts
    that are not switched on cost nothing.

    Args:
        retry_quota: Tokens that each endpoint and model has for retries; ``True`` for the usual 500.
            ``None`` or ``False`` counts nothing, and so never refuses a retry.
        requests_per_minute: The most requests that are sent in any minute.
        tokens_per_minute: The most tokens that are charged in any minute. Prompt and largest possible answer
            are reserved before a request is sent, and corrected when it is known what was used.
        learn: Take limits and remainders from the service's ``x-ratelimit-*`` headers, and from its refusals.
        adaptive_concurrency: Find out how many exchanges at a time are borne: one more after as many successes,
            times 0.7 after throttling. ``True`` begins with 10; a number begins there.
        max_concurrency: The most exchanges at a time, streams counted until their last byte.
        circuit_breaker: Stop sending for a while when most calls fail. ``True`` for the usual ``BreakerPolicy``.
        max_waiting: How many requests may wait. One more fails at once with ``QueueFullError``: a queue that
            only grows turns every deadline into a timeout.
        burst_seconds: How many seconds' worth of a minute's limit may go at once after a rest, up to 60.
        clock: Seconds; the clock of the running event loop if left out.

    Raises:
        ValueError: A figure makes no sense; the message names it.
    """

    def __init__(
        self,
        *,
        retry_quota: int | bool | None = True,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        learn: bool = False,
        adaptive_concurrency: int | bool = False,
        max_concurrency: int | None = None,
        circuit_breaker: BreakerPolicy | bool = False,
        max_waiting: int = 1000,
        burst_seconds: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if retry_quota is True:
            retry_quota = _USUAL_QUOTA
        elif retry_quota is False:
            retry_quota = None
        elif retry_quota is not None and not retry_quota >= 0:
            raise ValueError(f"retry_quota must be None or at least 0, not {retry_quota}.")
        if adaptive_concurrency is True:
            adaptive_concurrency = _FIRST_CONCURRENCY
        elif adaptive_concurrency is False:
            adaptive_concurrency = 0
        elif adaptive_concurrency < 1:
            raise ValueError(f"adaptive_concurrency must be True, False or at least 1, not {adaptive_concurrency}.")
        for name, value in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be None or above 0, not {value}.")
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be None or at least 1, not {max_concurrency}.")
        if max_waiting < 0:
            raise ValueError(f"max_waiting must be at least 0, not {max_waiting}.")
        if not 0 < burst_seconds <= 60:
            raise ValueError(f"burst_seconds must be above 0 and at most 60, not {burst_seconds}.")
        self._capacity = retry_quota
        # What is missing from each quota. A key that is absent is full, which is the normal
        # state: so a call that succeeds costs one look-up, and forgetting an old key is safe.
        self._missing: OrderedDict[Key, int] = OrderedDict()
        # Re-entrant, since a coroutine dropped half-way gives its tokens back when the garbage
        # collector finds it, and that may happen in a thread that is inside one of these methods.
        self._lock = threading.RLock()
        if circuit_breaker is True:
            circuit_breaker = BreakerPolicy()
        self._options = GateOptions(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            burst=burst_seconds,
            learn=learn,
            adaptive_concurrency=adaptive_concurrency or None,
            max_concurrency=max_concurrency,
            breaker=circuit_breaker or None,
            max_waiting=max_waiting,
        )
        self._active = self._options.active
        self._counts_tokens = self._options.counts_tokens
        self._clock = clock
        self._models: OrderedDict[Key, _Model] = OrderedDict()

    # Retry quota -----------------------------------------------------------------------------

    def take_retry(self, key: Key, *, throttled: bool) -> int | None:
        """Pay for one retry: what it cost, or ``None`` when the quota does not cover it."""
        if self._capacity is None:
            return 0
        cost = _THROTTLE_COST if throttled else _TRANSIENT_COST
        with self._lock:
            missing = self._missing.get(key, 0)
            if missing + cost > self._capacity:
                return None
            self._missing[key] = missing + cost
            self._missing.move_to_end(key)
            if len(self._missing) > _MAX_KEYS:
                self._missing.popitem(last=False)
        return cost

    def give_back(self, key: Key, tokens: int) -> None:
        """Return ``tokens`` to the quota, never above its capacity."""
        if tokens <= 0 or key not in self._missing:
            return
        with self._lock:
            missing = self._missing.get(key, 0) - tokens
            if missing > 0:
                self._missing[key] = missing
            else:
                self._missing.pop(key, None)

    # Before and after sending ----------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything but the retry quota is switched on."""
        return self._active

    def layers(self) -> tuple[ThrottleLayer, ...]:
        """What belongs into a pipeline, between classifying and authenticating: one layer, or nothing at all."""
        if not self._active:
            return ()
        from apex_llm.transport.throttle import ThrottleLayer

        return (ThrottleLayer(self),)

    async def acquire(self, request: HttpRequest, /) -> GateLeave | None:
        """Wait until ``request`` may be sent; ``None`` at once for requests that are to no model, such as listings.

        Raises:
            RequestTimeoutError: ``request.deadline`` passed first; ``phase`` is ``queue``.
            QueueFullError: ``max_waiting`` others wait already.
            OverloadedError: The breaker is open; ``retry_after`` says for how long.
        """
        if not request.model:
            return None
        model = self._model(request)
        cost = 0
        if self._counts_tokens:
            cost = request.estimated_tokens or model.estimate.tokens(request)
        return await model.gate.acquire(request, cost)

    def estimated_tokens(self, request: HttpRequest) -> int:
        """What to reserve for ``request``: prompt and largest possible answer; 0 where tokens are not counted."""
        if not self._counts_tokens or not request.model:
            return 0
        return self._model(request).estimate.tokens(request)

    def opened(self, request: HttpRequest) -> HttpRequest:
        """``request`` as the layer wants it: with what to reserve, and an account of its own."""
        if not self._active or not request.model:
            return request
        from apex_llm.transport.gate import Account

        return msgspec.structs.replace(request, estimated_tokens=self.estimated_tokens(request), account=Account())

    def settle(self, request: HttpRequest, usage: Usage, *, at_admission: bool = False) -> None:
        """Correct what was reserved for ``request`` by what it has used.

        Args:
            request: As it was given to the pipeline, with ``estimated_tokens``.
            usage: From the answer.
            at_admission: Whether the service charges prompt and ``max_tokens`` for good, whatever is written.
        """
        if not request.estimated_tokens:
            return
        model = self._model(request)
        charged = model.estimate.charged(request, usage, at_admission=at_admission)
        model.estimate.learn(request, usage)
        model.gate.post(partial(model.gate.on_usage, request.estimated_tokens, charged))

    def report(self, request: HttpRequest, error: ApexLlmError) -> None:
        """Learn from an error that came after a good head: a refusal inside a stream, or a body that broke.

        Counts once for each attempt, and not at all where the gate has seen the failure itself or nothing was sent.

        Args:
            request: As ``opened`` gave it.
            error: What its answer brought.
        """
        from apex_llm.transport.gate import Account

        if isinstance(request.account, Account) and (ticket := request.account.ticket) is not None:
            gate = self._model(request).gate
            gate.post(partial(gate.on_late_failure, ticket, error))

    def _model(self, request: HttpRequest) -> _Model:
        from apex_llm.transport.gate import Gate

        key = (request.origin.authority, request.model)
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                return model
            model = self._models[key] = _Model(Gate(self._options, clock=self._clock))
            if len(self._models) > _MAX_KEYS:
                idle = next((old for old, kept in self._models.items() if kept.gate.idle and old != key), None)
                if idle is not None:
                    del self._models[idle]
            return model

    # Looking on ------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The state as plain values, for logs and tests.

        ``{"retry_quota": {"capacity": 500, "remaining": {(endpoint, model): 486}}, "models": {}}``: a key that
        is not named has its full capacity. ``models`` has an entry for each endpoint and model that was called
        while something other than the quota is on, with

        - ``active``, ``waiting``: exchanges under way, and requests in the queue, now;
        - ``sent``, ``throttled``, ``refused``: requests let go, refused by the service for their rate, and
          refused here (queue full, breaker open), since the beginning;
        - ``concurrency``: ``None`` or ``{"limit", "adaptive"}``;
        - ``breaker``: ``None`` or ``{"state", "calls", "failures", "retry_after"}``, state ``closed``, ``open``
          or ``half_open``, calls and failures of the window;
        - ``paused_for``: seconds for which the service asked not to be asked;
        - ``requests``, ``tokens``: ``None``, or the limit a minute, what remains of it, and its ``source``:
          ``configured``, ``told`` by a header, or concluded from a ``remainder`` or a ``refusal``.

        Times are those of the running event loop; elsewhere, those of the last event.
        """
        with self._lock:
            missing = dict(self._missing)
            models = list(self._models.items())
        capacity = self._capacity
        remaining = {} if capacity is None else {key: capacity - tokens for key, tokens in missing.items()}
        return {
            "retry_quota": {"capacity": capacity, "remaining": remaining},
            "models": {key: model.gate.snapshot() for key, model in models},
        }

    def __repr__(self) -> str:
        options = self._options
        told = {
            "retry_quota": self._capacity,
            "requests_per_minute": options.requests_per_minute,
            "tokens_per_minute": options.tokens_per_minute,
            "learn": options.learn or None,
            "adaptive_concurrency": options.adaptive_concurrency,
            "max_concurrency": options.max_concurrency,
            "circuit_breaker": options.breaker,
        }
        shown = [f"{name}={value!r}" for name, value in told.items() if value is not None or name == "retry_quota"]
        return f"Limits({', '.join(shown)})"
