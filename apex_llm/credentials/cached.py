"""Credentials kept fresh: one fetch at a time, early and in the background where possible.

The windows are botocore's: from 15 minutes before expiry one refresh runs in the background
while everybody goes on with the old value (advisory); from 10 minutes before, callers wait for
it (mandatory). Where the source is down, the old value serves until it expires.

A cache may outlive event loops (a second ``asyncio.run``, the loop of the sync twins), so it
holds no asyncio primitive of its own: each waiter brings a future of its own loop, and a
refresh whose loop has stopped is given up and begun again.
"""

from __future__ import annotations

__all__ = ["CachedCredentials", "Fetched", "StaticCredentials"]

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ConfigurationError,
    KeyAccessDeniedError,
    KeyStoreError,
    MissingCredentialsError,
)

_logger = logging.getLogger("apex_llm.credentials")

_INFINITY = float("inf")
_SHORTEST_PAUSE = 5.0
# Seconds between two fetches of credentials that are about to expire and do not get any younger.


class _Expiring(Protocol):
    @property
    def expires_at(self) -> float | None: ...


T = TypeVar("T", bound=_Expiring)


class Fetched(Generic[T]):
    """A fetched value together with what its source knows of its life.

    Args:
        value: The credentials.
        refresh_at: When to look again in the background (seconds since the epoch), if earlier than usual.
        block_at: When callers must wait for a fresh look, if earlier than usual.
    """

    __slots__ = ("block_at", "refresh_at", "value")

    def __init__(self, value: T, *, refresh_at: float | None = None, block_at: float | None = None) -> None:
        self.value: T = value
        self.refresh_at: float | None = refresh_at
        self.block_at: float | None = block_at


class StaticCredentials(Generic[T]):
    """A ``CredentialSource`` of a value that never changes, or only when ``reload`` finds another."""

    __slots__ = ("_reload", "_value")

    def __init__(self, value: T, *, reload: Callable[[], T | None] | None = None) -> None:
        self._value = value
        self._reload = reload

    def current(self) -> T | None:
        """The value."""
        return self._value

    async def get(self) -> T:
        """The value."""
        return self._value

    def invalidate(self, used: T | None = None) -> None:
        """Look again where that is possible without waiting (the environment); otherwise nothing."""
        if self._reload is not None and (used is None or used is self._value):
            self._value = self._reload() or self._value

    def __repr__(self) -> str:
        return f"StaticCredentials({getattr(self._value, 'source', '')})"


class _Flight(Generic[T]):
    """One fetch under way, on one loop, with those who wait for it on any loop."""

    __slots__ = ("_lock", "_process", "_waiters", "error", "finished", "loop", "task", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.finished = False
        self.value: T | None = None
        self.error: ApexLlmError | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def alive(self) -> bool:
        """False once it has ended, and when its loop stopped, or stayed behind in the parent process."""
        return not self.finished and self.loop.is_running() and self._process == os.getpid()

    def finish(self) -> None:
        """Wake everybody; without value or error it means: given up, start again."""
        with self._lock:
            self.finished = True
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            try:
                waiter.get_loop().call_soon_threadsafe(_release, waiter)
            except RuntimeError:
                continue  # that loop is closed, and its waiters are gone with it

    async def wait(self) -> None:
        """Until it ends or dies. Cancelling one waiter does nothing to the others."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.finished:
                return
            self._waiters.add(waiter)
        try:
            if waiter.get_loop() is self.loop:
                await waiter
            else:
                # Another loop may stop without a word, so look after it.
                while self.alive and not waiter.done():
                    await asyncio.wait((waiter,), timeout=0.5)
        finally:
            with self._lock:
                self._waiters.discard(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class CachedCredentials(Generic[T]):
    """A ``CredentialSource`` that fetches when needed and refreshes before it must.

    Values without ``expires_at`` are kept until ``invalidate()``, unless ``fetch`` returns a
    ``Fetched`` that says when to look again.

    Args:
        fetch: Gets the credentials; errors of this package pass to the caller, others are translated.
        name: What this is, for logs and messages.
        advisory: Seconds before expiry from which one refresh runs in the background.
        mandatory: Seconds before expiry from which callers wait for the refresh.
        retry_after: Seconds to leave a source alone after a failed refresh, while the old value serves.
        final: Errors after which the old value serves no longer: access was taken away.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T | Fetched[T]]],
        *,
        name: str = "credentials",
        advisory: float = 900.0,
        mandatory: float = 600.0,
        retry_after: float = 30.0,
        final: tuple[type[ApexLlmError], ...] = (KeyAccessDeniedError,),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._advisory = advisory
        self._mandatory = min(mandatory, advisory)
        self._retry_after = retry_after
        self._final = final
        self._clock = clock
        # Re-entrant, since collecting the refresh of a dead loop runs its clean-up wherever we are.
        self._lock = threading.RLock()
        self._value: T | None = None
        self._inline_until = -_INFINITY
        self._block_at = -_INFINITY
        self._expires_at = -_INFINITY
        self._short = False
        self._flight: _Flight[T] | None = None

    def __repr__(self) -> str:
        state = "empty" if self._value is None else getattr(self._value, "source", "cached")
        return f"CachedCredentials({self._name}, {state})"

    def current(self) -> T | None:
        """The value while it needs no attention; ``None`` asks the caller to ``await get()``."""
        return self._value if self._clock() < self._inline_until else None

    async def get(self) -> T:
        """The value, fetched or refreshed where needed.

        Raises:
            MissingCredentialsError: Nothing was found, or what was found has expired and cannot be renewed.
            AuthenticationError: The service that issues credentials refused.
        """
        while True:
            now = self._clock()
            with self._lock:
                value = self._value
                if value is not None and now < self._inline_until:
                    return value
                flight = self._flight
                if flight is None or not flight.alive:
                    flight = self._start()
                if value is not None and now < self._block_at:
                    # Others need not pass here while the refresh runs.
                    self._inline_until = self._block_at
                    return value
            await flight.wait()
            if flight.value is not None:
                return flight.value
            if flight.error is not None:
                value = self._value
                if value is not None and self._clock() < self._expires_at:
                    return value
                raise _again(flight.error)

    def invalidate(self, used: T | None = None) -> None:
        """Forget the value: the service refused it.

        Args:
            used: The value that was refused; another one that came meanwhile is kept.
        """
        with self._lock:
            if used is not None and used is not self._value:
                return
            self._inline_until = self._block_at = self._expires_at = -_INFINITY
            self._value = None

    def _start(self) -> _Flight[T]:
        loop = asyncio.get_running_loop()
        flight: _Flight[T] = _Flight(loop)
        # Not create_task(): an eager task factory would run the fetch right here, inside the lock.
        task = asyncio.Task(self._fly(flight), loop=loop, name=f"apex_llm refresh of {self._name}")
        # A loop that is closed without cancelling its tasks leaves this one pending. That loses
        # nothing (whoever comes next starts again), so it is not worth an alarming message.
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        # A task that is cancelled before its first step never reaches its own clean-up.
        task.add_done_callback(lambda _: None if flight.finished else flight.finish())
        flight.task = task
        self._flight = flight
        return flight

    async def _fly(self, flight: _Flight[T]) -> None:
        try:
            try:
                fetched = await self._fetch()
                flight.value = self._accept(fetched, flight)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancelled us: what the source waits for was cancelled, and would be so again at once.
                flight.error = self._refuse(error, flight)
            except Exception as error:  # noqa: BLE001 - translated below, and raised to whoever waits
                flight.error = self._refuse(error, flight)
        finally:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
            flight.task = None
            flight.finish()

    def _accept(self, fetched: T | Fetched[T], flight: _Flight[T]) -> T:
        if not isinstance(fetched, Fetched):
            fetched = Fetched(fetched)
        value = fetched.value
        now = self._clock()
        expires_at = _INFINITY if value.expires_at is None else value.expires_at
        if expires_at <= now:
            raise MissingCredentialsError(
                f"{self._name}: the credentials that were fetched expired {now - expires_at:.0f} s ago.",
                hint="Renew them at their source; if they are new, check this machine's clock.",
            )
        life = expires_at - now
        short = life < self._advisory
        with self._lock:
            if self._flight is not flight:
                return value  # begun on a loop that stopped; a newer refresh has the say
            if short and self._short:
                # Looking twice gave nothing younger: the source issues, or still holds, short-lived
                # ones. The usual windows would then refresh on every call.
                refresh_at = now + max(life * 0.5, min(_SHORTEST_PAUSE, life))
                block_at = now + max(life * 0.75, min(_SHORTEST_PAUSE, life))
            else:
                refresh_at = expires_at - self._advisory
                block_at = expires_at - self._mandatory
            if self._value is not None and value == self._value:
                value = self._value  # the same object, so that whoever compares by identity sees no change
            if fetched.refresh_at is not None:
                refresh_at = min(refresh_at, fetched.refresh_at)
            if fetched.block_at is not None:
                block_at = min(block_at, fetched.block_at)
            self._short = short
            self._value = value
            self._expires_at = expires_at
            self._block_at = block_at
            self._inline_until = min(refresh_at, block_at)
        return value

    def _refuse(self, error: BaseException, flight: _Flight[T]) -> ApexLlmError:
        translated = self._translate(error)
        now = self._clock()
        with self._lock:
            if self._flight is not flight:
                return translated
            if isinstance(error, self._final):
                self._value = None
                self._inline_until = self._block_at = self._expires_at = -_INFINITY
            if self._value is None or now >= self._expires_at:
                return translated
            self._inline_until = min(now + self._retry_after, self._expires_at)
            remaining = self._expires_at - now
        _logger.warning(
            "%s could not be refreshed; the old ones are used, for %.0f s at most: %s",
            self._name,
            remaining,
            translated.message,
        )
        return translated

    def _translate(self, error: BaseException) -> ApexLlmError:
        if isinstance(error, ConfigurationError | AuthenticationError | KeyStoreError):
            return error
        if isinstance(error, ApexLlmError):
            told, hint, retryable = error.message, error.hint, error.retryable
        else:
            # The text of a foreign exception may hold the very secret that it was given.
            told, hint, retryable = f"{type(error).__name__} was raised", None, False
        missing = MissingCredentialsError(
            f"{self._name} could not be obtained: {told}", hint=hint, retryable=retryable, phase="prepare"
        )
        missing.__cause__ = error
        return missing


def _again(error: ApexLlmError) -> ApexLlmError:
    """A copy for one waiter: callers add facts and tracebacks to what they catch."""
    import copy

    twin: Any = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin
