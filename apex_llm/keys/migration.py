"""The file of ApexAgent's first key manager: a Fernet token of JSON, under ``APEX_AGENT_MASTER_KEY``.

Read only, and renamed when everything that it held is safely in the store.
"""

from __future__ import annotations

__all__ = ["DEFAULT_LEGACY_FILE", "LegacyCredentials", "read_legacy", "retire_legacy"]

import os
from pathlib import Path
from typing import Any

import msgspec

from apex_llm.errors import KeyStoreError, TamperedError, UnsupportedFormatError, WrongPassphraseError
from apex_llm.keys.os_errors import translated
from apex_llm.types.decoders import decoder_for

DEFAULT_LEGACY_FILE = "~/.apex_agent_api_keys.enc"
_MAX_BYTES = 16 << 20


class LegacyCredentials(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the file held."""

    api_keys: dict[str, str | dict[str, Any]] = msgspec.field(default_factory=dict[str, "str | dict[str, Any]"])
    oauth_tokens: dict[str, str | dict[str, Any]] = msgspec.field(default_factory=dict[str, "str | dict[str, Any]"])

    def __repr__(self) -> str:
        return f"LegacyCredentials({len(self.api_keys)} keys, {len(self.oauth_tokens)} tokens)"


def read_legacy(path: Path, master_key: str) -> LegacyCredentials:
    """Decrypt the file. It is not changed.

    Args:
        path: The file.
        master_key: The Fernet key: URL-safe base64 of 32 bytes.

    Raises:
        KeyStoreError: It cannot be read, or the package cryptography is missing.
        TamperedError: The key does not open it, or it is damaged: Fernet does not tell which.
        UnsupportedFormatError: It holds something else.
        WrongPassphraseError: The key is not a Fernet key.
    """
    try:
        from cryptography.fernet import Fernet, InvalidToken
    except ImportError as error:
        raise KeyStoreError(
            "Reading the older file needs the package cryptography.",
            hint='Install it with: pip install "apex-llm[keys]"',
        ) from error
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise translated(error, f"Reading {path}") from error
    if len(token) > _MAX_BYTES:
        raise UnsupportedFormatError(f"{path} has more than {_MAX_BYTES} bytes.")
    if not token.strip():
        raise UnsupportedFormatError(f"{path} is empty. It was left as it is.")
    try:
        fernet = Fernet(master_key.strip().encode())
    except (ValueError, TypeError):
        raise WrongPassphraseError(
            "The older master key is not a Fernet key (URL-safe base64 of 32 bytes).",
            hint="Set APEX_AGENT_MASTER_KEY to the key that the older manager used.",
        ) from None
    try:
        plaintext = fernet.decrypt(token.strip())
    except InvalidToken:
        raise TamperedError(
            f"{path} is damaged, or APEX_AGENT_MASTER_KEY is another key. It was left as it is.",
            hint="Check the key first. If the file is torn, look for a copy of it in a backup.",
        ) from None
    try:
        return decoder_for(LegacyCredentials).decode(plaintext)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnsupportedFormatError(
            f"{path} was decrypted, but does not hold api_keys and oauth_tokens. It was left as it is."
        ) from None


def retire_legacy(path: Path) -> Path:
    """Rename the file, so that nothing reads it any more and nothing is lost. Its new name is returned."""
    target = path.with_name(f"{path.name}.migrated")
    number = 1
    while target.exists() or target.is_symlink():
        number += 1
        target = path.with_name(f"{path.name}.migrated.{number}")
    try:
        if os.name == "posix":
            path.chmod(0o600)
        path.rename(target)
    except OSError as error:
        raise translated(error, f"Everything was moved; but renaming {path}") from error
    return target
