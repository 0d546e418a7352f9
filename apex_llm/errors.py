"""Every error of the package, ordered by what the caller can do about it.

::

    ApexLlmError
    ├─ ConfigurationError            fix the set-up
    │  ├─ MissingCredentialsError    no credentials were found; names each source that was tried
    │  ├─ UnknownModelError          the name stands for no model of this provider
    │  ├─ InvalidEndpointError       the endpoint is not one that we may send credentials to
    │  └─ KeyAccessDeniedError       a plugin asked for a key that it was not granted
    ├─ RequestError                  fix the call
    │  ├─ InvalidRequestError        the service, or we, refused the arguments
    │  ├─ AuthenticationError        the credentials are wrong or have expired
    │  ├─ PermissionDeniedError      the credentials are right, but not allowed to do this
    │  ├─ ModelNotFoundError         no such model, deployment or endpoint
    │  ├─ ContextWindowExceededError the prompt is too long
    │  ├─ ContentFilteredError       prompt or answer was blocked; .categories, .where
    │  └─ QuotaExceededError         an account limit that waiting will not lift
    ├─ TransientError                try again later
    │  ├─ RateLimitError             too many requests or tokens; .retry_after
    │  ├─ OverloadedError            the service is unavailable or overloaded
    │  ├─ ModelTimeoutError          the model took longer than the service allows
    │  ├─ RequestTimeoutError        one of our deadlines passed; .phase tells which
    │  ├─ QueueFullError             too many calls wait already for leave to be sent
    │  └─ ConnectionFailedError      no connection, or it broke; .kind tells how
    ├─ StreamInterruptedError        keep what arrived: .partial, .events_seen
    │  ├─ StreamTruncatedError       the stream ended without its terminal event
    │  └─ IdleTimeoutError           nothing meaningful arrived for too long
    ├─ ProtocolError                 the peer broke the protocol; report it
    │  ├─ EventStreamError           AWS event-stream framing
    │  ├─ SseError                   server-sent events framing
    │  ├─ ResponseFormatError        the body is not what the service documents
    │  └─ LimitExceededError         larger than we are willing to read; .limit
    └─ KeyStoreError                 the key store could not be read or written
       ├─ NoKeyStoreError            there is none yet
       ├─ WrongPassphraseError       the passphrase or key does not open it
       ├─ TamperedError              it was damaged, changed or put back from an older state
       ├─ UnsupportedFormatError     it is no key store, or one that this version does not read
       ├─ PermissionsTooOpenError    others could read or replace it: mode, owner, links, file type
       ├─ LockedError                another process kept it locked for too long
       └─ NoUnlockerError            nothing that could open it was given; names each that was tried

No exception of another library reaches a caller: the room where a foreign exception
enters translates it, and chains it as ``__cause__``.
"""

from __future__ import annotations

__all__ = [
    "ApexLlmError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentFilteredError",
    "ContextWindowExceededError",
    "EventStreamError",
    "IdleTimeoutError",
    "InvalidEndpointError",
    "InvalidRequestError",
    "KeyAccessDeniedError",
    "KeyStoreError",
    "LimitExceededError",
    "LockedError",
    "MissingCredentialsError",
    "ModelNotFoundError",
    "ModelTimeoutError",
    "NoKeyStoreError",
    "NoUnlockerError",
    "OverloadedError",
    "PermissionDeniedError",
    "PermissionsTooOpenError",
    "ProtocolError",
    "QueueFullError",
    "QuotaExceededError",
    "RateLimitError",
    "RequestError",
    "RequestTimeoutError",
    "ResponseFormatError",
    "SseError",
    "StreamInterruptedError",
    "StreamTruncatedError",
    "TamperedError",
    "TransientError",
    "UnknownModelError",
    "UnsupportedFormatError",
    "WrongPassphraseError",
]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apex_llm.types.responses import ChatResponse


class ApexLlmError(Exception):
    """The one class to catch for anything that goes wrong in this package.

    Instances pickle, so they cross process borders with all their attributes.
    """

    provider: str | None
    """``"bedrock"`` or ``"azure_openai"``."""
    model: str | None
    """The model or deployment as it was sent."""
    status: int | None
    """HTTP status of the answer, where there was one."""
    code: str | None
    """The service's own word for the error, such as ``ThrottlingException``."""
    request_id: str | None
    """Quote it to the provider's support."""
    attempts: int
    """Attempts made, the failed one included; 0 when nothing was sent."""
    retryable: bool
    """Whether the same call may succeed later."""
    retry_after: float | None
    """Seconds that the service asked to wait."""
    phase: str | None
    """Where in the call it happened: ``prepare``, ``credentials``, ``queue``, ``connect``, ``send``, ``head``,
    ``first_byte``, ``body``, ``idle``, ``total`` or ``mid-stream``."""
    hint: str | None
    """What to do next, in one sentence."""
    headers: Mapping[str, str]
    """Headers of the answer, names in lower case; empty where there was none."""
    partial: ChatResponse | None
    """What had arrived when a stream failed; ``None`` outside streams."""

    _default_retryable = False
    _default_phase: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        attempts: int = 0,
        retryable: bool | None = None,
        retry_after: float | None = None,
        phase: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        partial: ChatResponse | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        self.attempts = attempts
        self.retryable = self._default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.phase = self._default_phase if phase is None else phase
        self.hint = hint
        self.headers = headers or {}
        self.partial = partial

    def __str__(self) -> str:
        facts = [
            f"{name}={value}"
            for name, value in (("status", self.status), ("code", self.code), ("request_id", self.request_id))
            if value is not None
        ]
        text = self.message or type(self).__name__
        if facts:
            text = f"{text} [{', '.join(facts)}]"
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, {**self.__dict__, "headers": dict(self.headers)}))


def _rebuild(kind: type[ApexLlmError], args: tuple[Any, ...], state: dict[str, Any]) -> ApexLlmError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(ApexLlmError):
    """Something about the set-up must change; nothing was sent."""

    _default_phase = "prepare"


class MissingCredentialsError(ConfigurationError):
    """No credentials were found. The message names each source that was tried."""


class UnknownModelError(ConfigurationError):
    """The name stands for no model of this provider."""


class InvalidEndpointError(ConfigurationError):
    """The endpoint, region or path segment is not one that we may send credentials to."""


class KeyAccessDeniedError(ConfigurationError):
    """A plugin asked for a key that it was not granted."""


class RequestError(ApexLlmError):
    """The same call will fail again; the call must change."""


class InvalidRequestError(RequestError):
    """The arguments were refused, by us before sending or by the service."""

    param: str | None
    """The member that was refused, where the service names it."""

    def __init__(self, message: str = "", *, param: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.param = param


class AuthenticationError(RequestError):
    """The credentials are wrong or have expired."""


class PermissionDeniedError(RequestError):
    """The credentials are genuine, but may not do this."""


class ModelNotFoundError(RequestError):
    """No such model, deployment or endpoint, or it was retired."""


class ContextWindowExceededError(RequestError):
    """Prompt and requested output together are longer than the model reads."""


class ContentFilteredError(RequestError):
    """A content filter or guardrail blocked the prompt or the answer."""

    categories: Sequence[str]
    """What was found, such as ``hate`` or ``jailbreak``; empty where the service does not say."""
    where: str
    """``"prompt"`` or ``"completion"``."""

    def __init__(
        self, message: str = "", *, categories: Sequence[str] = (), where: str = "prompt", **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.categories = tuple(categories)
        self.where = where


class QuotaExceededError(RequestError):
    """An account limit, or a wait of hours: trying again soon is useless."""


class TransientError(ApexLlmError):
    """The same call may succeed later."""

    _default_retryable = True
    quota_exhausted: bool = False
    """True when no retry was made because the retry quota was empty."""


class RateLimitError(TransientError):
    """Too many requests or tokens for now."""


class OverloadedError(TransientError):
    """The service is unavailable, overloaded or failed inside."""


class ModelTimeoutError(TransientError):
    """The model took longer than the service allows. Not retried by default: it would be billed again."""

    _default_retryable = False


class RequestTimeoutError(TransientError):
    """One of our own deadlines passed; ``phase`` tells which."""


class QueueFullError(TransientError):
    """So many calls wait already for leave to be sent that one more would only add to the queue.

    Nothing was sent. Not retried by itself: the queue is full because too much is asked for.
    """

    _default_retryable = False


class ConnectionFailedError(TransientError):
    """No connection, or it broke before the answer was complete."""

    kind: str
    """``dns``, ``refused``, ``reset``, ``closed``, ``short``, ``tls``, ``certificate``, ``proxy`` or ``network``."""

    def __init__(self, message: str = "", *, kind: str = "network", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.kind = kind


class StreamInterruptedError(ApexLlmError):
    """A stream broke after something had been delivered. The typed reason is ``__cause__``."""

    events_seen: int
    """Events handed over before it broke."""

    _default_phase = "mid-stream"

    def __init__(self, message: str = "", *, events_seen: int = 0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.events_seen = events_seen


class StreamTruncatedError(StreamInterruptedError):
    """The connection ended cleanly, but the stream's terminal event never came."""

    _default_retryable = True


class IdleTimeoutError(StreamInterruptedError):
    """Bytes may have come, but nothing that carries meaning, for longer than the idle timeout."""

    _default_retryable = True


class ProtocolError(ApexLlmError):
    """The peer did not follow the protocol; the connection is not used again."""


class EventStreamError(ProtocolError):
    """A frame of ``application/vnd.amazon.eventstream`` is damaged or impossible."""


class SseError(ProtocolError):
    """A server-sent events body cannot be read."""


class ResponseFormatError(ProtocolError):
    """The body is not what the service documents."""


class LimitExceededError(ProtocolError):
    """The peer sent more than we are willing to hold."""

    limit: str
    """Which limit: ``head``, ``headers``, ``interim``, ``trailers``, ``frame``, ``event``, ``body``, ``depth``."""

    def __init__(self, message: str = "", *, limit: str = "body", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.limit = limit


class KeyStoreError(ApexLlmError):
    """The key store could not be read or written."""


class NoKeyStoreError(KeyStoreError):
    """There is no key store there, and there never was one: make it first."""


class WrongPassphraseError(KeyStoreError):
    """The passphrase or key does not open the store. A damaged header looks the same."""


class TamperedError(KeyStoreError):
    """The store is not as it was written: damaged, changed, or an older one put in its place."""


class UnsupportedFormatError(KeyStoreError):
    """The file is no key store, or one of a kind that this version does not read."""


class PermissionsTooOpenError(KeyStoreError):
    """Others could read or replace a file of the store: its mode, owner, links or type are not what they must be."""


class LockedError(KeyStoreError):
    """Another process kept the store locked for too long."""

    _default_retryable = True


class NoUnlockerError(KeyStoreError):
    """Nothing that could open the store was given. The message names each way that was tried."""
