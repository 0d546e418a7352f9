"""What goes into the headers of Azure: an API key, or a token that knows when it ends."""

from __future__ import annotations

__all__ = ["AzureToken", "HeaderKind", "azure_api_key", "azure_bearer", "jwt_expiry", "kind_mismatch", "seconds_of"]

import base64
import binascii
from typing import Literal, TypeAlias

import msgspec

from apex_llm.errors import ConfigurationError, MissingCredentialsError
from apex_llm.types.decoders import decoder_for
from apex_llm.types.secrets import AccessToken, Secret

HeaderKind: TypeAlias = Literal["api-key", "bearer"]

_END_OF_TIME = 1e11
"""In the sixth millennium."""


class AzureToken(AccessToken, frozen=True, kw_only=True):
    """A key or token, and the header that it goes into."""

    header: HeaderKind


class _Claims(msgspec.Struct):
    """The one claim that matters here."""

    exp: int | float | None = None


def azure_api_key(value: object, *, source: str) -> AzureToken:
    """An API key, for the ``api-key`` header; ``MissingCredentialsError`` if it is empty or cannot be sent."""
    return AzureToken(value=_clean(value, "API key", source), source=source, header="api-key")


def azure_bearer(value: object, *, source: str, expires_at: float | None = None) -> AzureToken:
    """A token, for the ``Authorization`` header; a JWT's own expiry is used where ``expires_at`` is not given."""
    secret = _clean(value, "token", source)
    if expires_at is None:
        expires_at = jwt_expiry(secret.reveal())
    return AzureToken(value=secret, source=source, expires_at=expires_at, header="bearer")


def jwt_expiry(token: str) -> float | None:
    """When a JWT ends, in seconds since the epoch; ``None`` if it is no JWT. Nothing is verified."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return seconds_of(decoder_for(_Claims).decode(claims).exp)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None


def kind_mismatch(token: AzureToken) -> str | None:
    """What to do about a key that was given as a token, a token as a key, or a key of another service.

    A guess by its looks, so it is for the hint of a refusal, and refuses nothing by itself.
    """
    value = token.value.reveal()
    if token.header == "api-key" and value.startswith("eyJ") and value.count(".") == 2:
        return f"{token.source} is an Entra token: pass it as azure_ad_token=, or set AZURE_OPENAI_AD_TOKEN."
    if token.header == "bearer" and value.isalnum() and len(value) in {32, 84}:
        return f"{token.source} looks like a resource's key: pass it as api_key=, or set AZURE_OPENAI_API_KEY."
    if value.startswith("sk-"):
        return (
            f"{token.source} looks like a key of OpenAI's own service. Take the resource's, from 'Keys and Endpoint'."
        )
    return None


def seconds_of(value: object) -> float | None:
    """``value`` as seconds; ``None`` if it is no number, or one that no clock will ever show."""
    try:
        seconds = None if value is None else float(value)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if seconds is not None and abs(seconds) < _END_OF_TIME else None


def _clean(value: object, what: str, source: str) -> Secret:
    if isinstance(value, Secret):
        value = value.reveal()
    elif callable(reveal := getattr(value, "get_secret_value", None)):
        value = reveal()  # pydantic's SecretStr
    if not isinstance(value, str):
        raise ConfigurationError(
            f"The Azure {what} ({source}) is of type {type(value).__name__}, not text.", hint="Give it as a str."
        )
    value = value.strip()
    if what == "token":
        value = value.removeprefix("Bearer ").strip()
    if not value:
        raise MissingCredentialsError(
            f"The Azure {what} ({source}) is empty.", hint="Give one, or leave it out for what the environment has."
        )
    if not (value.isascii() and value.isprintable()) or " " in value or value[0] == value[-1] in {"'", '"'}:
        raise MissingCredentialsError(
            f"The Azure {what} ({source}) holds a space, a control character, quotation marks or what is not ASCII.",
            hint="Copy it again; a line break or quotation marks may have come along.",
        )
    return Secret(value, name="azure_api_key" if what == "API key" else "azure_token")
