"""Credentials on their way to another store: an age file for a passphrase or a recipient, never plain text."""

from __future__ import annotations

__all__ = ["Bundle", "read_bundle", "write_bundle"]

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from apex_llm.errors import ConfigurationError, KeyStoreError, UnsupportedFormatError
from apex_llm.keys.agefile import MAX_FILE_BYTES, decrypt, encrypt, is_recipient
from apex_llm.keys.document import Document, Grant, Kind, Value
from apex_llm.keys.os_errors import translated
from apex_llm.keys.os_layer import OsLayer
from apex_llm.keys.passphrase import decrypt_with_passphrase, encrypt_with_passphrase
from apex_llm.types.decoders import decoder_for

_FORMAT = "apex-llm-export-1"


class Bundle(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an export holds."""

    export: str = _FORMAT
    credentials: dict[str, dict[Kind, Value]] = msgspec.field(default_factory=dict[str, "dict[Kind, Value]"])
    permissions: dict[str, list[Grant]] = msgspec.field(default_factory=dict[str, list[Grant]])

    def __repr__(self) -> str:
        return f"Bundle({len(self.credentials)} services)"

    @classmethod
    def of(cls, document: Document, services: Sequence[str] | None) -> Bundle:
        """What is in force in a store; of ``services`` only, if they are named."""
        missing = sorted(set(services or ()) - set(document.credentials))
        if missing:
            raise ConfigurationError(f"The store holds nothing for {', '.join(missing)}.")
        chosen = document.credentials if services is None else {name: document.credentials[name] for name in services}
        return cls(
            credentials={
                name: {kind: record.current.value for kind, record in kinds.items()} for name, kinds in chosen.items()
            },
            permissions={
                plugin: kept
                for plugin, grants in document.permissions.items()
                if (kept := [grant for grant in grants if services is None or grant.service in services])
            },
        )


def write_bundle(
    path: Path, bundle: Bundle, *, passphrase: str | None, recipients: Sequence[str], layer: OsLayer
) -> None:
    """Write an export to a new file of mode 0600.

    Raises:
        ConfigurationError: Neither or both of passphrase and recipients, or one that is no recipient.
        KeyStoreError: It cannot be written; an existing file is never replaced.
    """
    if (passphrase is None) == (not recipients):
        raise ConfigurationError("An export needs either a passphrase or recipients (age1...).")
    for recipient in recipients:
        if not is_recipient(recipient):
            raise ConfigurationError(f"{recipient[:80]!r} is not an age recipient (age1...).")
    plaintext = msgspec.json.encode(bundle)
    content = encrypt(plaintext, recipients) if passphrase is None else encrypt_with_passphrase(plaintext, passphrase)
    try:
        descriptor = layer.open_new(str(path.parent), path.name, -1)
    except FileExistsError:
        raise KeyStoreError(f"{path} exists already.", hint="Name another file; none is replaced.") from None
    except OSError as error:
        raise translated(error, f"Writing {path}") from error
    try:
        try:
            layer.restrict(descriptor)
            left = content
            while left:
                left = left[layer.write(descriptor, left) :]
            layer.sync(descriptor)
        finally:
            layer.close(descriptor)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise translated(error, f"Writing {path}") from error
        raise


def read_bundle(path: Path, *, passphrase: str | None, identity: str | None) -> Bundle:
    """Read an export.

    Raises:
        ConfigurationError: Neither or both of passphrase and identity.
        KeyStoreError: It cannot be read, opened or understood.
    """
    if (passphrase is None) == (identity is None):
        raise ConfigurationError("An import needs either the passphrase or the identity of the export.")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise translated(error, f"Reading {path}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UnsupportedFormatError(f"{path} has more than {MAX_FILE_BYTES} bytes.")
    if passphrase is not None:
        plaintext = decrypt_with_passphrase(content, passphrase, what=str(path))
    else:
        plaintext = decrypt(content, [identity or ""], what=str(path))
    try:
        bundle = decoder_for(Bundle).decode(plaintext)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnsupportedFormatError(f"{path} was decrypted, but is not an export of a key store.") from None
    if bundle.export != _FORMAT:
        raise UnsupportedFormatError(f"{path} is an export of another format.")
    return bundle
