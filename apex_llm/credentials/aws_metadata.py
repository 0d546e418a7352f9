"""AWS credentials from the machine itself: the container endpoint, and EC2 instance metadata.

Container: ECS, EKS Pod Identity and others that set ``AWS_CONTAINER_CREDENTIALS_*``. Instance
metadata: version 2 only, because version 1 answers any request that a confused proxy or a
forged link makes. Both are asked directly, never through a proxy, never beyond the addresses
that are reserved for them.
"""

from __future__ import annotations

__all__ = ["container_credentials", "container_variable", "instance_credentials"]

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from apex_llm.credentials.aws_explicit import pair
from apex_llm.credentials.http import Reply, decode, fetch, is_loopback, seconds_from_iso, split_url
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    MissingCredentialsError,
    RequestTimeoutError,
    ResponseFormatError,
)
from apex_llm.types.http import Origin, Send
from apex_llm.types.secrets import AwsCredentials

_ATTEMPTS = 3
_INSTANCE_TIMEOUT = 1.0
_INSTANCE_PAUSE = 0.1
_CONTAINER_TIMEOUT = 2.0
_CONTAINER_PAUSE = 1.0
_CONTAINER_HOSTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_INSTANCE_HOSTS = frozenset({"169.254.169.254", "fd00:ec2::254"})
_ROLES = "/latest/meta-data/iam/security-credentials/"
_STALE_SECONDS = 600.0
# For so long are old keys of instance metadata taken to be good, before it is asked for newer ones.

_logger = logging.getLogger("apex_llm.credentials")

Sleep = Callable[[float], Awaitable[None]]


class _Answer(msgspec.Struct, rename="pascal"):
    """Both endpoints; ``Code`` says when instance metadata refuses."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    token: str | None = None
    expiration: str | None = None
    code: str | None = None


class _TryAgainError(Exception):
    """An answer that may be better next time; the text says what was wrong with it."""


def container_variable(environ: Mapping[str, str]) -> str | None:
    """Which variable names a container endpoint, if one does."""
    for name in ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        if environ.get(name):
            return name
    return None


async def container_credentials(
    send: Send, *, environ: Mapping[str, str], sleep: Sleep = asyncio.sleep
) -> AwsCredentials:
    """The credentials that the container's agent hands out.

    Raises:
        InvalidEndpointError: The endpoint is one that gets no authorization token from us.
        MissingCredentialsError: It gave none.
    """
    origin, target, source = _container_endpoint(environ)
    headers = (("accept", "application/json"), *await _container_authorization(environ))

    async def attempt() -> AwsCredentials:
        reply = await fetch(
            send, "GET", origin, target, headers=headers, timeout=_CONTAINER_TIMEOUT, operation="container-credentials"
        )
        _check(reply, source)
        return _credentials(reply.body, source, without_token=True)

    return await _tries(attempt, source=source, pause=_CONTAINER_PAUSE, sleep=sleep)


async def instance_credentials(
    send: Send,
    *,
    environ: Mapping[str, str],
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.time,
) -> AwsCredentials | None:
    """The credentials of the instance's role, or ``None`` where instance metadata is switched off.

    Keys whose time is over are used all the same, with a warning: the service hands out its old ones while AWS cannot
    give it new ones, and other services go on taking them then. If they do not, their refusal says so.

    Raises:
        InvalidEndpointError: The endpoint is not one of instance metadata.
        MissingCredentialsError: It gave none: not on EC2, no role, or too many hops away.
    """
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    origin, prefix = _instance_endpoint(environ)
    source = f"instance metadata at {origin.url}"

    async def ask(method: str, path: str, header: tuple[str, str]) -> Reply:
        reply = await fetch(
            send,
            method,
            origin,
            prefix + path,
            headers=(header,),
            timeout=_INSTANCE_TIMEOUT,
            operation="instance-credentials",
        )
        if reply.status == 404 and path.startswith(_ROLES):
            raise MissingCredentialsError(
                f"{source}: no role is attached to this instance.", hint="Attach an instance profile."
            )
        if method == "PUT" and reply.status in {403, 404, 405}:
            raise MissingCredentialsError(
                f"{source}: a version 2 token was refused (status {reply.status}); version 1 is not used.",
                hint="Enable version 2 of the instance metadata service (IMDSv2).",
            )
        _check(reply, source)
        return reply

    async def attempt() -> AwsCredentials:
        granted = await ask("PUT", "/latest/api/token", ("x-aws-ec2-metadata-token-ttl-seconds", "21600"))
        token = ("x-aws-ec2-metadata-token", _line(granted.body, source))
        role = _line((await ask("GET", _ROLES, token)).body, source)
        reply = await ask("GET", _ROLES + quote(role, safe=""), token)
        return _credentials(reply.body, f"{source}, role {role}")

    found = await _tries(
        attempt,
        source=source,
        pause=_INSTANCE_PAUSE,
        sleep=sleep,
        timeout_hint="Inside a container the hop limit of the instance must be 2 or more; "
        "elsewhere set AWS_EC2_METADATA_DISABLED=true.",
    )
    now = clock()
    if found.expires_at is None or found.expires_at > now:
        return found
    _logger.warning(
        "%s gave credentials that expired %.0f s ago; they are used until it has newer ones",
        source,
        now - found.expires_at,
    )
    return msgspec.structs.replace(found, expires_at=now + _STALE_SECONDS)


async def _tries(
    attempt: Callable[[], Awaitable[AwsCredentials]],
    *,
    source: str,
    pause: float,
    sleep: Sleep,
    timeout_hint: str | None = None,
) -> AwsCredentials:
    wrong, hint = "", None
    cause: ApexLlmError | None = None
    for number in range(1, _ATTEMPTS + 1):
        hint, cause = None, None
        try:
            return await attempt()
        except _TryAgainError as error:
            wrong = str(error)
        except ResponseFormatError as error:
            wrong, cause = error.message, error
        except RequestTimeoutError as error:
            wrong, cause, hint = error.message, error, timeout_hint
        except ConnectionFailedError as error:
            wrong, cause = error.message, error
            if error.kind in {"refused", "dns", "network"}:
                break  # nobody is there, and nobody will be in a second
        except ConfigurationError:
            raise
        except ApexLlmError as error:
            wrong, cause = error.message, error
            break
        if number < _ATTEMPTS:
            await sleep(pause)
    raise MissingCredentialsError(f"{source} gave no credentials: {wrong}", hint=hint, retryable=True) from cause


_ROLE_HINT = "Check that the container or the instance has a role, or pass credentials=."


def _check(reply: Reply, source: str) -> None:
    if reply.status == 200:
        return
    if reply.status == 429 or reply.status >= 500:
        raise _TryAgainError(f"status {reply.status}")
    raise MissingCredentialsError(f"{source} answered with status {reply.status}.", hint=_ROLE_HINT)


def _line(body: bytes, source: str) -> str:
    try:
        words = body.decode("ascii").split()
    except UnicodeDecodeError:
        words = []
    # A captive portal or a proxy would send a page here.
    if not words or any("<" in word for word in words):
        raise ResponseFormatError(f"{source} answered with {len(body)} bytes where a name or a token was expected.")
    return words[0]


def _credentials(body: bytes, source: str, *, without_token: bool = False) -> AwsCredentials:
    """``without_token``: whether they may be of the lasting kind, as some agents hand out that are not AWS's own."""
    answer = decode(body, _Answer, name=source)
    if not answer.access_key_id and answer.code and answer.code != "Success":
        raise MissingCredentialsError(f"{source} refused: {answer.code}.", hint=_ROLE_HINT)
    if not answer.access_key_id or not answer.secret_access_key or not (answer.token or without_token):
        raise ResponseFormatError(f"{source} answered without one of AccessKeyId, SecretAccessKey and Token.")
    expires_at = seconds_from_iso(answer.expiration, name=f"Expiration of {source}") if answer.expiration else None
    found = pair(
        answer.access_key_id, answer.secret_access_key, answer.token or None, source=source, expires_at=expires_at
    )
    assert found is not None
    return found


def _container_endpoint(environ: Mapping[str, str]) -> tuple[Origin, str, str]:
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if relative:
        name = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
        if not relative.startswith("/"):
            raise InvalidEndpointError(
                f"{name} does not begin with a slash.", hint="The container's agent sets it; pass it on unchanged."
            )
        origin, target = split_url(f"http://169.254.170.2{relative}", name=name)
        return origin, target, f"container endpoint {origin.url} ({name})"
    name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    origin, target = split_url(environ.get(name, ""), name=name)
    if origin.scheme != "https" and origin.host not in _CONTAINER_HOSTS and not is_loopback(origin.host):
        raise InvalidEndpointError(
            f"{name} names {origin.url}, which gets no credentials request over http.",
            hint="Use https, this machine, or one of 169.254.170.2, 169.254.170.23 and fd00:ec2::23.",
        )
    return origin, target, f"container endpoint {origin.url} ({name})"


async def _container_authorization(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    path = environ.get(name)
    if path:
        try:
            value = await run_in_thread(Path(path).read_text, "utf-8")
        except (OSError, ValueError) as error:
            raise MissingCredentialsError(
                f"{path} ({name}) cannot be read: {type(error).__name__}.", hint="Check that the file is mounted."
            ) from error
    else:
        name = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
        value = environ.get(name, "")
    if not value:
        return ()
    if not (value.isascii() and value.isprintable()):
        raise MissingCredentialsError(
            f"{name} holds a line break or another character that no header may have.",
            hint="The container's agent sets it; pass it on unchanged.",
        )
    return (("authorization", value),)


def _instance_endpoint(environ: Mapping[str, str]) -> tuple[Origin, str]:
    name = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    given = environ.get(name)
    if not given:
        mode = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv4").lower()
        return Origin("http", "fd00:ec2::254" if mode == "ipv6" else "169.254.169.254", 80), ""
    origin, target = split_url(given, name=name)
    if origin.host not in _INSTANCE_HOSTS and not is_loopback(origin.host):
        raise InvalidEndpointError(
            f"{name} names {origin.url}, which is not an instance metadata service.",
            hint="It may name 169.254.169.254, [fd00:ec2::254] or this machine.",
        )
    return origin, target.rstrip("/")
