"""Credentials onto requests: SigV4 signatures, bearer tokens, keys in a header.

Every layer here is bound to one origin, and refuses to add credentials to a request for any
other. Where credentials come from, and how they are kept fresh, is ``apex_llm.credentials``.

They are the innermost layers, so that each attempt is signed with the time and the
credentials of its own moment, and they also write the headers that number the attempts
(unsigned on AWS, as botocore does it): it costs one copy of the request and not two.
"""

from __future__ import annotations

__all__ = [
    "BearerAuthentication",
    "HeaderKeyAuthentication",
    "SigV4Authentication",
    "aws_attempt_headers",
    "azure_attempt_headers",
    "new_invocation_id",
]

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from random import getrandbits
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    InvalidEndpointError,
    MissingCredentialsError,
    RequestTimeoutError,
)
from apex_llm.protocol.backoff import clock_offset
from apex_llm.protocol.sigv4 import SigV4Signer
from apex_llm.types.http import HttpRequest, HttpResponse, Origin, Send
from apex_llm.types.secrets import AccessToken, AwsCredentials, CredentialSource

_logger = logging.getLogger("apex_llm.transport")

C = TypeVar("C")
_HeaderPairs: TypeAlias = tuple[tuple[str, str], ...]

_EXPIRED_CODES: Final = ("ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId")
_SKEW_CODES: Final = ("RequestTimeTooSkewed", "InvalidSignature", "SignatureDoesNotMatch", "RequestExpired")
_REFUSED: Final = (401, 403)
_UUID_FREE: Final = ~(0xF << 76 | 0x3 << 62)
_UUID_4: Final = 4 << 76 | 2 << 62
"""Version and variant of a random UUID (RFC 9562 section 5.4)."""
_MAX_SKEW: Final = 60.0
# AWS refuses beyond five minutes; a mismatch within one minute has another reason than the clock.
_IN_FLIGHT: Final = 300.0


def aws_attempt_headers(request: HttpRequest) -> _HeaderPairs:
    """``amz-sdk-invocation-id``, constant over the attempts of a call, and ``amz-sdk-request``, which counts them."""
    count = ("amz-sdk-request", f"attempt={request.attempt}; max={request.max_attempts}")
    return (("amz-sdk-invocation-id", request.invocation_id), count) if request.invocation_id else (count,)


def azure_attempt_headers(request: HttpRequest) -> _HeaderPairs:
    """``x-ms-client-request-id``, constant over the attempts of a call."""
    return (("x-ms-client-request-id", request.invocation_id),) if request.invocation_id else ()


def new_invocation_id(random_bits: Callable[[int], int] = getrandbits) -> str:
    """A random UUID (version 4) as text, for ``HttpRequest.invocation_id``.

    From the ordinary generator, at a quarter of what ``uuid.uuid4()`` costs: it has to be
    unique among requests, not hard to guess.
    """
    text = f"{random_bits(128) & _UUID_FREE | _UUID_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class _Authentication(Generic[C]):
    """What the three have in common: one origin, one source, and one renewal per call."""

    _names: frozenset[str]
    """The headers that this layer owns; a request's own are replaced."""

    def __init__(
        self,
        source: CredentialSource[C],
        *,
        origin: Origin,
        attempt_headers: Callable[[HttpRequest], _HeaderPairs] | None,
    ) -> None:
        self._source = source
        self._origin = origin
        self._attempt_headers = attempt_headers
        # What the service lately refused, so that a call that failed with old credentials does
        # not throw away those that another call has just fetched.
        self._refused: deque[C] = deque(maxlen=4)
        self._free: _HeaderPairs = ()
        """Headers that are known to hold none of ours: most calls come with the very same ones."""

    def _headers(self, request: HttpRequest, headers: _HeaderPairs, credentials: C, /) -> _HeaderPairs:
        raise NotImplementedError

    def _same(self, one: C, other: C, /) -> bool:
        raise NotImplementedError

    def _is_about_credentials(self, error: ApexLlmError, /) -> bool:
        raise NotImplementedError

    async def __call__(self, request: HttpRequest, send: Send, /) -> HttpResponse:
        """Send ``request`` with credentials.

        Raises:
            InvalidEndpointError: The request is for another origin.
            MissingCredentialsError: The source has none, or failed.
            RequestTimeoutError: The deadline passed while credentials were fetched.
        """
        origin = request.origin
        if origin is not self._origin and origin != self._origin:
            raise InvalidEndpointError(
                f"Credentials for {self._origin.url} are not sent to {origin.url}.",
                model=request.model or None,
                phase="prepare",
                hint="Make a provider of its own for each endpoint.",
            )
        try:
            credentials = self._source.current()
        except ApexLlmError:
            raise
        except Exception as error:
            raise _source_failed(self._source, error) from error
        if credentials is None:
            credentials = await self._fetch(request)
        headers = request.headers
        if headers is not self._free:
            for name, _ in headers:
                if name in self._names:
                    headers = tuple(pair for pair in headers if pair[0] not in self._names)
                    break
            self._free = headers
        added = self._headers(request, headers, credentials)
        numbers = () if self._attempt_headers is None else self._attempt_headers(request)
        response = await send(msgspec.structs.replace(request, headers=(*headers, *added, *numbers)))
        if response.status in _REFUSED and not any(refused is credentials for refused in tuple(self._refused)):
            self._refused.append(credentials)
        return response

    async def recover(self, error: ApexLlmError) -> bool:
        """Whether the cause of ``error`` was removed, so that the same call may now succeed.

        For the ``recover`` of ``run_attempts``. Renews credentials that the service called
        expired or unknown; false where the source has nothing else to offer.
        """
        if error.status not in _REFUSED or not self._is_about_credentials(error):
            return False
        source = self._source
        try:
            # Without fresh ones at hand, ask before invalidating: others may wait for a refresh already.
            current = source.current()
            if current is None:
                current = await source.get()
            if self._was_refused(current):
                source.invalidate()
                current = await source.get()
        except Exception as failure:  # noqa: BLE001 # the refusal says more than the failed renewal
            _logger.warning("renewing credentials after a refusal failed: %s", type(failure).__name__)
            error.add_note(f"Renewing the credentials failed as well: {type(failure).__name__}.")
            return False
        return not self._was_refused(current)

    def _was_refused(self, credentials: C) -> bool:
        return any(self._same(credentials, refused) for refused in tuple(self._refused))

    async def _fetch(self, request: HttpRequest) -> C:
        scope = asyncio.timeout_at(request.deadline)
        try:
            async with scope:
                return await self._source.get()
        except ApexLlmError:
            raise
        except Exception as error:
            if scope.expired():
                raise RequestTimeoutError(
                    "The call's deadline passed while credentials were being fetched.",
                    model=request.model or None,
                    phase="credentials",
                ) from error
            raise _source_failed(self._source, error) from error


class SigV4Authentication(_Authentication[AwsCredentials]):
    """Signs requests for AWS.

    Args:
        source: Keeps the key pair fresh.
        origin: The only origin that gets signed requests.
        region: Such as ``us-east-1``.
        service: The signing name.
        attempt_headers: Added after signing.
        clock: Seconds since the epoch.
    """

    _names = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})

    def __init__(
        self,
        source: CredentialSource[AwsCredentials],
        *,
        origin: Origin,
        region: str,
        service: str = "bedrock",
        attempt_headers: Callable[[HttpRequest], _HeaderPairs] | None = aws_attempt_headers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(source, origin=origin, attempt_headers=attempt_headers)
        self._authority = origin.authority
        self._region = region
        self._service = service
        self._clock = clock
        self._offset = 0.0
        self._learned_at: float | None = None
        self._signers: deque[tuple[AwsCredentials, SigV4Signer]] = deque(maxlen=4)
        self._latest: tuple[AwsCredentials, SigV4Signer] | None = None

    def _headers(self, request: HttpRequest, headers: _HeaderPairs, credentials: AwsCredentials, /) -> _HeaderPairs:
        latest = self._latest
        signer = latest[1] if latest is not None and latest[0] is credentials else self._signer(credentials)
        return signer.sign(
            method=request.method,
            target=request.target,
            authority=self._authority,
            headers=headers,
            body=request.body,
            timestamp=self._clock() + self._offset,
        )

    def _signer(self, credentials: AwsCredentials) -> SigV4Signer:
        """The signer of these credentials, with its signing key, also when their object is a new one each time."""
        signer = next((signer for known, signer in tuple(self._signers) if self._same(known, credentials)), None)
        if signer is None:
            token = credentials.session_token
            signer = SigV4Signer(
                access_key_id=credentials.access_key_id,
                secret_access_key=credentials.secret_access_key.reveal(),
                session_token=None if token is None else token.reveal(),
                region=self._region,
                service=self._service,
            )
            self._signers.append((credentials, signer))
        self._latest = (credentials, signer)
        return signer

    def _same(self, one: AwsCredentials, other: AwsCredentials, /) -> bool:
        return one is other or (
            one.access_key_id == other.access_key_id
            and one.secret_access_key == other.secret_access_key
            and one.session_token == other.session_token
        )

    def _is_about_credentials(self, error: ApexLlmError, /) -> bool:
        return error.code is not None and error.code.startswith(_EXPIRED_CODES)

    async def recover(self, error: ApexLlmError) -> bool:
        """Whether the cause of ``error`` was removed: credentials renewed, or the clock's error learned."""
        if error.code is not None and error.code.startswith(_SKEW_CODES):
            return self._learn_offset(error)
        return await super().recover(error)

    def _learn_offset(self, error: ApexLlmError) -> bool:
        now = self._clock()
        offset = clock_offset(error.headers.get("date"), now=now)
        if offset is None:
            return False
        if abs(offset - self._offset) > _MAX_SKEW:
            if self._learned_at is None:
                _logger.warning("the local clock is %+.0f s off the service's; signing with its time", -offset)
            self._offset = offset
            self._learned_at = now
            return True
        # Right now, but this request may have been signed before another one learned it.
        return self._learned_at is not None and abs(now - self._learned_at) < _IN_FLIGHT


class _TokenAuthentication(_Authentication[AccessToken]):
    def _same(self, one: AccessToken, other: AccessToken, /) -> bool:
        return one is other or one.value == other.value

    def _is_about_credentials(self, error: ApexLlmError, /) -> bool:
        return error.status == 401 or isinstance(error, AuthenticationError)


class BearerAuthentication(_TokenAuthentication):
    """``Authorization: Bearer <token>``, for Entra tokens and Bedrock API keys.

    Args:
        source: Keeps the token fresh.
        origin: The only origin that gets it.
        attempt_headers: ``aws_attempt_headers`` or ``azure_attempt_headers``.
    """

    _names = frozenset({"authorization", "api-key"})

    def __init__(
        self,
        source: CredentialSource[AccessToken],
        *,
        origin: Origin,
        attempt_headers: Callable[[HttpRequest], _HeaderPairs] | None = None,
    ) -> None:
        super().__init__(source, origin=origin, attempt_headers=attempt_headers)

    def _headers(self, request: HttpRequest, headers: _HeaderPairs, credentials: AccessToken, /) -> _HeaderPairs:
        return (("authorization", f"Bearer {credentials.value.reveal()}"),)


class HeaderKeyAuthentication(_TokenAuthentication):
    """A key in a header of its own, such as Azure's ``api-key``.

    Args:
        source: Holds the key.
        origin: The only origin that gets it.
        header: The header's name, in lower case.
        attempt_headers: Such as ``azure_attempt_headers``.
    """

    def __init__(
        self,
        source: CredentialSource[AccessToken],
        *,
        origin: Origin,
        header: str = "api-key",
        attempt_headers: Callable[[HttpRequest], _HeaderPairs] | None = azure_attempt_headers,
    ) -> None:
        super().__init__(source, origin=origin, attempt_headers=attempt_headers)
        self._header = header
        self._names = frozenset({"authorization", header})

    def _headers(self, request: HttpRequest, headers: _HeaderPairs, credentials: AccessToken, /) -> _HeaderPairs:
        return ((self._header, credentials.value.reveal()),)


def _source_failed(source: object, error: Exception) -> ApexLlmError:
    return MissingCredentialsError(
        f"The credential source {type(source).__name__} failed with {type(error).__name__}.",
        phase="prepare",
        hint="See the cause; a source must return credentials or raise an ApexLlmError.",
    )
