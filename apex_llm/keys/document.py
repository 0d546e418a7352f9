"""What a store holds, as JSON inside the age file; format 1.

Times are seconds since the epoch. Members that this version does not know are refused, because
saving would lose them.
"""

from __future__ import annotations

__all__ = [
    "AuditHead",
    "Document",
    "Grant",
    "Kind",
    "Recipients",
    "Record",
    "Rotation",
    "Value",
    "Version",
    "check_model",
    "check_name",
    "check_number",
    "check_value",
    "copied",
    "new_document",
    "read_document",
    "write_document",
]  # fmt: skip

import base64
import contextlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import msgspec

from apex_llm.errors import ConfigurationError, KeyStoreError, UnsupportedFormatError
from apex_llm.types.decoders import decoder_for
from apex_llm.types.secrets import Secret

Kind: TypeAlias = Literal["api_key", "oauth_token"]
Value: TypeAlias = str | dict[str, Any]
"""A key as it is, or a dictionary such as ``{"aws_access_key_id": …}``."""

FORMAT = 1
MAX_PLAINTEXT_BYTES = 8 << 20
_MAX_NAME = 200
_MAX_VALUE_BYTES = 256 << 10


# gc=False: a store is a tree, so nothing in it needs the cycle collector, which would slow each load.
class Version(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One value of a credential."""

    value: Value
    since: float

    def __repr__(self) -> str:
        return f"Version(since={self.since})"


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One credential: what is in force, and for an overlap what was in force before."""

    current: Version
    created: float
    rotated: float
    previous: Version | None = None
    retire_at: float | None = None
    """When ``previous`` is dropped."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one plugin may have of one service."""

    service: str
    models: tuple[str, ...] | None = None
    """Names or patterns (``anthropic.*``); ``None`` for all."""
    export: bool = True
    """False: only a provider may use it on the plugin's behalf, the plugin itself never sees it."""
    expires: float | None = None


class Recipients(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """To whom the store is encrypted. Whoever knows one could write a store: they are kept inside."""

    primary: str
    recovery: str | None = None
    retiring: list[str] = msgspec.field(default_factory=list[str])
    """Former primaries, until the store is first saved by somebody who has the new key."""

    def all(self) -> list[str]:
        """Every recipient, each once."""
        every = [self.primary, *([self.recovery] if self.recovery else []), *self.retiring]
        return list(dict.fromkeys(every))


class Rotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """When each kind of key was last rotated, and how often it should be."""

    last: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    days: dict[str, float] = msgspec.field(default_factory=dict[str, float])


class AuditHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last line of the audit log that this generation vouches for."""

    seq: int = 0
    mac: str = ""


class Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The whole store."""

    format: int
    store_id: str
    generation: int
    recipients: Recipients
    audit_key: str
    """Base64 of 32 bytes: chains the audit log, and keys its fingerprints."""
    credentials: dict[str, dict[Kind, Record]] = msgspec.field(default_factory=dict[str, dict[Kind, Record]])
    permissions: dict[str, list[Grant]] = msgspec.field(default_factory=dict[str, list[Grant]])
    access_control: bool = True
    rotation: Rotation = msgspec.field(default_factory=Rotation)
    audit_head: AuditHead = msgspec.field(default_factory=AuditHead)
    audit_start: AuditHead = msgspec.field(default_factory=AuditHead)
    """The last line of the log that was put away; the present log goes on from there."""

    def __repr__(self) -> str:
        return f"Document(generation={self.generation}, services={len(self.credentials)})"

    def audit_key_bytes(self) -> bytes:
        """The audit key itself."""
        return base64.b64decode(self.audit_key)


class _Format(msgspec.Struct):
    format: int


_DECODER = decoder_for(Document)
_ENCODER = msgspec.json.Encoder()


def new_document(primary: str, recovery: str | None, *, now: float) -> Document:
    """An empty store, generation 0."""
    return Document(
        format=FORMAT,
        store_id=secrets.token_hex(16),
        generation=0,
        recipients=Recipients(primary=primary, recovery=recovery),
        audit_key=base64.b64encode(os.urandom(32)).decode(),
        rotation=Rotation(last={"master_key": now, "encryption_keys": now}),
    )


def read_document(plaintext: bytes, *, what: str) -> Document:
    """The store in ``plaintext``.

    Raises:
        UnsupportedFormatError: It is another format, or none. No part of it is quoted.
    """
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise UnsupportedFormatError(f"{what} holds more than {MAX_PLAINTEXT_BYTES} bytes.")
    try:
        document = _DECODER.decode(plaintext)
        if document.format == FORMAT and document.generation > 0 and len(document.audit_key_bytes()) == 32:
            return document
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        pass
    found: int | None = None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = decoder_for(_Format).decode(plaintext).format
    if found in (None, FORMAT):
        # Not chained: msgspec's message may quote what it read.
        raise UnsupportedFormatError(
            f"{what} was decrypted, but does not hold a key store of format {FORMAT}.",
            hint="Nothing was written. Was it edited by hand, or written by a newer version?",
        )
    raise UnsupportedFormatError(
        f"{what} has format {found}; this version reads format {FORMAT}.", hint="Use a newer version of apex_llm."
    )


def write_document(document: Document) -> bytes:
    """The document as JSON.

    Raises:
        KeyStoreError: It has grown too large.
    """
    plaintext = _ENCODER.encode(document)
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise KeyStoreError(f"The store would hold {len(plaintext)} bytes; the limit is {MAX_PLAINTEXT_BYTES}.")
    return plaintext


def check_name(name: object, *, what: str) -> str:
    """``name`` if it can name a service or a plugin, as a plain ``str`` (those of some parsers are none).

    Raises:
        ConfigurationError: It cannot.
    """
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or not name.isprintable():
        shown = repr(name[:50]) if isinstance(name, str) else f"a {type(name).__name__}"
        raise ConfigurationError(f"A {what} is a printable string of 1 to {_MAX_NAME} characters, not {shown}.")
    return name if type(name) is str else str.__str__(name)


def check_model(model: object) -> str:
    """A model's name as a caller states it: any text, so that a grant decides and the log can tell.

    Raises:
        ConfigurationError: It is none.
    """
    with contextlib.suppress(UnicodeEncodeError):
        if isinstance(model, str) and model.encode():
            return model if type(model) is str else str.__str__(model)
    raise ConfigurationError(f"A model is a text, not {model!r:.50}.")


def check_number(value: object, *, what: str) -> float:
    """``value`` if it is a number that ends: one that is none would compare as neither before nor after any time.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    shown = repr(value)[:50] if isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
    raise ConfigurationError(f"{what} is a finite number, not {shown}.")


def check_value(value: object) -> Value:
    """A copy of ``value`` if it can be stored. Nothing of it is quoted in the error.

    Raises:
        ConfigurationError: It is neither text nor a dictionary that JSON can hold.
    """
    if isinstance(value, Secret):
        value = value.reveal()
    if isinstance(value, str):
        kept: Value = value
    elif isinstance(value, Mapping):
        kept = {
            str(name): part.reveal() if isinstance(part, Secret) else part
            for name, part in cast("Mapping[Any, Any]", value).items()
        }
    else:
        raise ConfigurationError(f"A credential is a string or a dictionary, not a {type(value).__name__}.")
    if not kept:
        raise ConfigurationError("The credential is empty.", hint="delete_credential() removes one.")
    try:
        # Stricter than msgspec, which would turn NaN into null, and bytes and dates into text.
        encoded = json.dumps(kept, allow_nan=False, ensure_ascii=False).encode()
        decoded = msgspec.json.decode(encoded)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        raise ConfigurationError(
            "The credential holds something that JSON does not.",
            hint="Use strings, numbers, booleans, None, lists and dictionaries; reveal() a Secret.",
        ) from None
    if len(encoded) > _MAX_VALUE_BYTES:
        raise ConfigurationError(f"The credential has {len(encoded)} bytes; the limit is {_MAX_VALUE_BYTES}.")
    return decoded


def copied(value: Value) -> Value:
    """A copy that the caller may change without changing the store's."""
    if isinstance(value, str):
        return value
    if all(isinstance(part, str) for part in value.values()):
        return dict(value)
    return msgspec.json.decode(_ENCODER.encode(value))
