"""Which AWS region to call, and which bearer key to send.

A region becomes part of a host name that receives credentials, so it is checked before use.
"""

from __future__ import annotations

__all__ = ["aws_region", "bedrock_bearer", "check_region"]

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from apex_llm.credentials.aws_explicit import is_access_key_id
from apex_llm.credentials.cached import CachedCredentials, Fetched, StaticCredentials
from apex_llm.credentials.threads import call
from apex_llm.errors import ApexLlmError, ConfigurationError, InvalidEndpointError, MissingCredentialsError
from apex_llm.types.secrets import AccessToken, CredentialSource, Secret

if TYPE_CHECKING:
    from pathlib import Path

_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}")
_ZONE = r"([a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2})[a-z]"
_FALLBACK = "us-east-1"
_RECHECK = 60.0


def check_region(region: str, *, source: str = "aws_region") -> str:
    """``region``, if it looks like one.

    Raises:
        InvalidEndpointError: It does not; it would become part of a host name.
    """
    if len(region) <= 40 and _REGION.fullmatch(region):
        return region
    shown = region if len(region) <= 40 else f"{region[:40]}…"
    hint = "Regions look like us-east-1, eu-central-1 or us-gov-west-1."
    if zone := re.fullmatch(_ZONE, region):
        hint = f"That is an availability zone; its region is {zone[1]}."
    elif _REGION.fullmatch(cleaned := region.strip().lower().replace("_", "-").replace(" ", "-")):
        hint = f"Did you mean {cleaned}?"
    raise InvalidEndpointError(f"{shown!r} ({source}) is not the name of an AWS region.", phase="prepare", hint=hint)


def aws_region(
    explicit: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    profile: str | None = None,
    home: Path | None = None,
) -> tuple[str, str]:
    """The region and where it came from.

    Order: argument, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the profile's ``region``, then
    ``us-east-1``, whose source is ``"default"``. Reads the shared files only when neither
    argument nor environment decides; that blocks for a moment, so call it in a thread.

    Raises:
        InvalidEndpointError: What was found is not a region.
    """
    environ = os.environ if environ is None else environ
    if explicit:
        return check_region(explicit, source="aws_region"), "argument"
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if value := environ.get(variable, "").strip():
            return check_region(value, source=variable), variable
    from apex_llm.credentials.aws_files import read_profile

    try:
        found = read_profile(profile, environ=environ, home=home)
    except ApexLlmError:
        return _FALLBACK, "default"  # told when the credentials are looked for; not everybody needs the files
    if value := found.merged.get("region", "").strip():
        source = f"profile {found.name!r}"
        return check_region(value, source=source), source
    return _FALLBACK, "default"


def bedrock_bearer(
    explicit: str | Secret | Callable[[], Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> CredentialSource[AccessToken] | None:
    """A source of the Bedrock API key, or ``None`` if there is none.

    Args:
        explicit: The key, or a function (sync ones run in a thread) that gives short-term keys;
            it is asked again every minute, in the background.
        environ: Where ``AWS_BEARER_TOKEN_BEDROCK`` is looked for.
        clock: Seconds since the epoch.

    Raises:
        MissingCredentialsError: A key was given, but is empty or cannot be sent.
    """
    environ = os.environ if environ is None else environ
    if explicit is None:
        variable = "AWS_BEARER_TOKEN_BEDROCK"

        def look() -> AccessToken | None:
            given = environ.get(variable, "").strip()
            return _token(given, source=variable) if given else None

        found = look()
        return None if found is None else StaticCredentials(found, reload=look)
    if isinstance(explicit, str | Secret):
        return StaticCredentials(_token(explicit, source="bearer_token"))
    if not callable(cast("object", explicit)):
        raise _not_a_string(explicit, "bearer_token")
    function = explicit

    async def fetch() -> Fetched[AccessToken]:
        return Fetched(_token(await call(function), source="bearer_token callback"), refresh_at=clock() + _RECHECK)

    return CachedCredentials(fetch, name="The Bedrock API key", clock=clock)


def _token(given: object, *, source: str) -> AccessToken:
    if isinstance(given, AccessToken):
        return given
    value = given.reveal() if isinstance(given, Secret) else given
    if not isinstance(value, str):
        raise _not_a_string(value, source)
    value = value.strip().removeprefix("Bearer ").strip()
    if not value:
        raise MissingCredentialsError(
            f"The Bedrock API key ({source}) is empty.", hint="Give one, or leave it out to sign with credentials."
        )
    if not (value.isascii() and value.isprintable()) or " " in value or value[0] == value[-1] in {"'", '"'}:
        raise MissingCredentialsError(
            f"The Bedrock API key ({source}) holds a space, a control character, quotation marks or what is not ASCII.",
            hint="Copy it again; a line break or quotation marks may have come along.",
        )
    if is_access_key_id(value):
        raise MissingCredentialsError(
            f"The Bedrock API key ({source}) is an access key id.",
            hint="Pass it with its secret as credentials=, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    return AccessToken(value=Secret(value, name="bedrock_api_key"), source=source)


def _not_a_string(value: object, source: str) -> ConfigurationError:
    return ConfigurationError(
        f"The Bedrock API key ({source}) is of type {type(value).__name__}.",
        hint="Pass the key as text or as a Secret, or a function that gives it.",
    )
