"""AWS credentials as users hand them over: dictionaries, objects, sessions, callbacks.

Key, secret and session token are taken from one place or not at all. Objects of botocore,
boto3 and aiobotocore are recognised by their methods; none of those libraries is imported.
"""

from __future__ import annotations

__all__ = ["explicit_aws_credentials", "from_mapping", "is_access_key_id", "pair", "region_of"]

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from apex_llm.credentials.cached import CachedCredentials, Fetched, StaticCredentials
from apex_llm.credentials.threads import call
from apex_llm.errors import ConfigurationError, MissingCredentialsError, ResponseFormatError
from apex_llm.types.secrets import AwsCredentials, CredentialSource, Secret

_END_OF_TIME = 1e11
"""Seconds; in the sixth millennium."""
_RECHECK = 60.0
# Seconds after which a session or callback that names no expiry is asked again, in the background.

_QUOTES = ("'", '"')
_ACCESS = ("accesskeyid", "accesskey")
_SECRET = ("secretaccesskey", "secretkey")
_TOKEN = ("sessiontoken", "token", "securitytoken")
_EXPIRY = ("expiration", "expiresat", "expirytime", "expires")
_REGION = ("region", "regionname", "defaultregion")
_ATTRIBUTES = (
    *("access_key_id", "secret_access_key", "session_token", "expires_at", "access_key", "secret_key", "token"),
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "expiration"),
)


def pair(
    access_key_id: object,
    secret_access_key: object,
    session_token: object,
    *,
    source: str,
    expires_at: float | None = None,
) -> AwsCredentials | None:
    """One atomic value; ``None`` if neither key nor secret is given.

    Raises:
        MissingCredentialsError: Only half of the pair is there, or a value cannot be a key.
    """
    key, secret, token = _text(access_key_id), _text(secret_access_key), _text(session_token)
    if not key and not secret:
        if token:
            raise _incomplete(source, "only a session token", "the access key id and the secret access key")
        return None
    if not secret:
        raise _incomplete(source, "an access key id", "the secret access key")
    if not key:
        raise _incomplete(source, "a secret access key", "the access key id")
    for name, value in (("access key id", key), ("secret access key", secret), ("session token", token)):
        if not (value.isascii() and value.isprintable()) or " " in value or value[:1] == value[-1:] in _QUOTES:
            raise MissingCredentialsError(
                f"The {name} of {source} holds a space, a control character, quotation marks or what is not ASCII.",
                hint="Copy it again; a line break or quotation marks may have come along.",
            )
    if key.startswith(("ABSK", "bedrock-api-key-")):
        raise MissingCredentialsError(
            f"The access key id of {source} is a Bedrock API key, with which nothing can be signed.",
            hint="Pass it as bearer_token=, or set AWS_BEARER_TOKEN_BEDROCK.",
        )
    if is_access_key_id(secret):
        raise MissingCredentialsError(
            f"The secret access key of {source} is an access key id.", hint="The two may have changed places."
        )
    return AwsCredentials(
        access_key_id=key,
        secret_access_key=Secret(secret, name="aws_secret_access_key"),
        session_token=Secret(token, name="aws_session_token") if token else None,
        expires_at=expires_at,
        source=source,
    )


def is_access_key_id(text: str) -> bool:
    """Whether ``text`` has the form of the public half of a key pair."""
    return len(text) == 20 and text.startswith(("AKIA", "ASIA")) and text.isalnum() and text.isupper()


def from_mapping(values: Mapping[Any, Any], *, source: str) -> AwsCredentials | None:
    """Credentials from a dictionary with ``aws_access_key_id``, ``AccessKeyId``, ``access_key_id`` and the like.

    Returns:
        ``None`` if it holds neither a key nor a secret.
    """
    found = {_plain(name): value for name, value in values.items() if isinstance(name, str)}
    return pair(
        _first(found, _ACCESS),
        _first(found, _SECRET),
        _first(found, _TOKEN),
        source=source,
        expires_at=_moment(_first(found, _EXPIRY), source=source),
    )


def region_of(credentials: object) -> str | None:
    """The region that came with explicit credentials: ``aws_region`` of a dictionary, or a session's own.

    May read the configuration file, if ``credentials`` is a boto3 session.
    """
    if isinstance(credentials, Mapping):
        values = cast("Mapping[Any, Any]", credentials)
        found = {_plain(name): value for name, value in values.items() if isinstance(name, str)}
        return _text(_first(found, _REGION)) or None
    try:
        region = getattr(credentials, "region_name", None)
        if region is None and hasattr(credentials, "get_config_variable"):
            region = cast("Any", credentials).get_config_variable("region")
    except Exception:  # noqa: BLE001 - a broken profile is reported when its credentials are needed
        return None
    return region if isinstance(region, str) and region else None


def explicit_aws_credentials(
    credentials: object, *, clock: Callable[[], float] = time.time
) -> CredentialSource[AwsCredentials]:
    """A source of what was passed as ``credentials=``.

    Args:
        credentials: A dictionary, an object with such attributes, a botocore, boto3 or aiobotocore
            session or credentials, a callable (sync ones run in a thread) that returns any of these,
            or a ``CredentialSource``, which is returned as it is.
        clock: Seconds since the epoch.

    Raises:
        MissingCredentialsError: It is empty, or half of a pair.
        ConfigurationError: It is nothing of the kind.
    """
    if isinstance(credentials, AwsCredentials):
        return StaticCredentials(credentials)
    if isinstance(credentials, Mapping):
        found = from_mapping(cast("Mapping[Any, Any]", credentials), source="explicit")
        if found is None:
            raise _empty("credentials=")
        return StaticCredentials(found)
    if all(callable(getattr(credentials, name, None)) for name in ("current", "get", "invalidate")):
        return cast("CredentialSource[AwsCredentials]", credentials)
    if _asks(credentials):

        async def fetch() -> AwsCredentials | Fetched[AwsCredentials]:
            value = await _ask(credentials)
            return value if value.expires_at is not None else Fetched(value, refresh_at=clock() + _RECHECK)

        return CachedCredentials(fetch, name="AWS credentials", clock=clock)
    found = _from_attributes(credentials, source="explicit")
    if found is None:
        raise _wrong_kind(credentials)
    return StaticCredentials(found)


def _asks(credentials: object) -> bool:
    return (
        callable(credentials)
        or callable(getattr(credentials, "get_frozen_credentials", None))
        or callable(getattr(credentials, "get_credentials", None))
    )


async def _ask(given: Any, *, depth: int = 0, source: str = "explicit") -> AwsCredentials:
    """Follow sessions, refreshable credentials and callbacks down to a value."""
    if given is None:
        raise _empty(source)
    if depth > 4:  # a callback that returns callbacks
        raise _wrong_kind(given)
    if isinstance(given, AwsCredentials):
        return given
    if isinstance(given, Mapping):
        found = from_mapping(cast("Mapping[Any, Any]", given), source=source)
        if found is None:
            raise _empty(source)
        return found
    if callable(getattr(given, "get_frozen_credentials", None)):
        frozen = await call(given.get_frozen_credentials)
        found = _from_attributes(frozen, source=f"{type(given).__module__.partition('.')[0]} credentials")
        if found is None:
            raise _empty(source)
        # botocore keeps the expiry to itself, and refreshes on demand at the same windows as ours.
        expires_at = found.expires_at or _moment(getattr(given, "_expiry_time", None), source=source)
        return (
            pair(
                found.access_key_id,
                found.secret_access_key,
                found.session_token,
                source=found.source,
                expires_at=expires_at,
            )
            or found
        )
    if callable(getattr(given, "get_credentials", None)):
        held = await call(given.get_credentials)
        return await _ask(held, depth=depth + 1, source=f"{type(given).__module__.partition('.')[0]} session")
    if callable(given):
        return await _ask(await call(given), depth=depth + 1, source="callback")
    found = _from_attributes(given, source=source)
    if found is None:
        raise _wrong_kind(given)
    return found


def _from_attributes(given: object, *, source: str) -> AwsCredentials | None:
    values = {name: getattr(given, name, None) for name in _ATTRIBUTES}
    return from_mapping({name: value for name, value in values.items() if value is not None}, source=source)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removeprefix("aws")


def _first(found: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Secret):
        value = value.reveal()
    elif callable(reveal := getattr(value, "get_secret_value", None)):
        value = reveal()  # pydantic's SecretStr
    if not isinstance(value, str):
        raise ConfigurationError(
            f"A part of the AWS credentials is of type {type(value).__name__}.", hint="Give each part as text."
        )
    return value.strip()


def _moment(value: Any, *, source: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    if isinstance(value, int | float) and abs(value) < _END_OF_TIME * 1000:
        return value / 1000 if value > _END_OF_TIME else float(value)  # milliseconds, as SSO gives them
    if isinstance(value, str):
        from apex_llm.credentials.http import seconds_from_iso

        try:
            return seconds_from_iso(value, name="the expiry")
        except ResponseFormatError:
            pass
    raise ConfigurationError(
        f"The expiry of the AWS credentials ({source}) is neither a time nor an ISO 8601 text.",
        hint="Give a datetime, seconds since the epoch, or 2030-01-31T12:00:00Z.",
    )


def _incomplete(source: str, has: str, lacks: str) -> MissingCredentialsError:
    return MissingCredentialsError(
        f"The AWS credentials of {source} are incomplete: there is {has}, but {lacks} is missing or empty.",
        hint="Give both parts in the same place, or neither; a pair is never put together from two places.",
    )


def _empty(source: str) -> MissingCredentialsError:
    return MissingCredentialsError(
        f"There are no AWS credentials in {source}: aws_access_key_id and aws_secret_access_key are missing or empty.",
        hint="Pass both, or leave credentials= out to use the environment and the shared files.",
    )


def _wrong_kind(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"AWS credentials cannot be taken from a {type(given).__module__}.{type(given).__qualname__}.",
        hint="Pass a dictionary with aws_access_key_id and aws_secret_access_key, a botocore, boto3 or aiobotocore "
        "session or credentials, or a function that returns one of these.",
    )
