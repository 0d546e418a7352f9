"""age files: looked at before they are opened, and opened by pyrage.

Format: https://age-encryption.org/v1 (C2SP). The header is read first, because it is the part that
a stranger may have written: a scrypt stanza names its own cost, and we refuse to pay too much.
"""

from __future__ import annotations

__all__ = [
    "MAX_FILE_BYTES", "MAX_WORK_FACTOR", "check_header", "decrypt", "encrypt", "is_recipient", "load_pyrage",
    "new_identity", "recipient_of",
]  # fmt: skip

import re
from collections.abc import Sequence
from typing import Any, Literal

from apex_llm.errors import KeyStoreError, TamperedError, UnsupportedFormatError, WrongPassphraseError

MAX_FILE_BYTES = 16 << 20
MAX_WORK_FACTOR = 22
_MAX_HEADER_BYTES = 64 << 10
_MAX_STANZAS = 20
_VERSION = b"age-encryption.org/v1"
_ARMOUR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_FACTOR = re.compile(rb"[1-9][0-9]?\Z")


def load_pyrage() -> Any:
    """The library that does the cryptography.

    Raises:
        KeyStoreError: It is not installed.
    """
    try:
        import pyrage  # pyright: ignore[reportMissingTypeStubs, reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise KeyStoreError(
            "The key store needs the package pyrage.", hint='Install it with: pip install "apex-llm[keys]"'
        ) from error
    return pyrage


def check_header(content: bytes, *, expected: Literal["X25519", "scrypt"], what: str) -> None:
    """Refuse a file that is no age file of the expected kind, or would cost too much to open.

    Args:
        content: The whole file, or its beginning.
        expected: The kind of stanza: keys for a store, ``scrypt`` for a passphrase.
        what: Names the file in messages.

    Raises:
        UnsupportedFormatError: It is something else.
    """
    if content.startswith(_ARMOUR):
        raise UnsupportedFormatError(f"{what} is an armoured age file.", hint="Write it without age's option --armor.")
    end = content.find(b"\n--- ", 0, _MAX_HEADER_BYTES)
    lines = content[: end if end >= 0 else _MAX_HEADER_BYTES].split(b"\n")
    if lines[0] != _VERSION:
        raise UnsupportedFormatError(
            f"{what} is not an age file{' (it is empty)' if not content else ''}.",
            hint="Was it written by another program, or cut off? Backups are beside the store (.bak.1 to .bak.3).",
        )
    if end < 0:
        raise UnsupportedFormatError(f"The header of {what} does not end within {_MAX_HEADER_BYTES} bytes.")
    stanzas = 0
    kinds: list[bytes] = []
    for line in lines[1:]:
        if not line.startswith(b"-> "):
            continue
        stanzas += 1
        if stanzas > _MAX_STANZAS:
            raise UnsupportedFormatError(f"The header of {what} has more than {_MAX_STANZAS} stanzas.")
        words = line.split(b" ")
        kinds.append(words[1])
        if words[1] == b"scrypt":
            _check_work_factor(words, what)
    known = [kind for kind in kinds if not kind.endswith(b"-grease")]
    if not known or any(kind != expected.encode() for kind in known) or (expected == "scrypt" and len(kinds) > 1):
        found = ", ".join(sorted({kind.decode("ascii", "replace")[:20] for kind in known})) or "nothing known"
        raise UnsupportedFormatError(f"{what} is encrypted to {found}, not to {expected}.")


def _check_work_factor(words: list[bytes], what: str) -> None:
    if len(words) != 4 or not _FACTOR.match(words[3]):
        raise UnsupportedFormatError(f"The scrypt stanza of {what} is not well formed.")
    if int(words[3]) > MAX_WORK_FACTOR:
        raise UnsupportedFormatError(
            f"{what} asks for 2^{int(words[3])} rounds of scrypt; the limit is 2^{MAX_WORK_FACTOR}.",
            hint="No store of ours asks for so many. Restore the file from a backup.",
        )


def encrypt(plaintext: bytes, recipients: Sequence[str]) -> bytes:
    """``plaintext`` as an age file for ``recipients`` (``age1…``)."""
    pyrage = load_pyrage()
    try:
        return pyrage.encrypt(plaintext, [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients])
    except Exception as error:
        raise KeyStoreError(f"age could not encrypt: {type(error).__name__}.") from error


def decrypt(content: bytes, identities: Sequence[str], *, what: str) -> bytes:
    """What an age file holds.

    Raises:
        UnsupportedFormatError: It is no age file for keys.
        WrongPassphraseError: It is for none of ``identities``, or its header was changed.
        TamperedError: It was changed or cut off.
    """
    check_header(content, expected="X25519", what=what)
    pyrage = load_pyrage()
    try:
        keys = [pyrage.x25519.Identity.from_str(identity) for identity in identities]
        return pyrage.decrypt(content, keys)
    except BaseException as error:
        # A panic of the Rust code is a BaseException of its own; a keyboard interrupt must pass.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if "No matching keys" in str(error):
            raise WrongPassphraseError(
                f"{what} is encrypted to another key than the one given, or its header is damaged.",
                hint="Check which key is used (apex-llm keys status). Backups are beside the store (.bak.1 to .bak.3).",
            ) from None
        raise TamperedError(
            f"{what} is damaged or was changed: age cannot authenticate it.",
            hint="Nothing was written. Backups are beside the store (.bak.1 to .bak.3).",
        ) from error


def new_identity() -> str:
    """A fresh identity, ``AGE-SECRET-KEY-1…``."""
    return str(load_pyrage().x25519.Identity.generate())


def recipient_of(identity: str) -> str:
    """To whom to encrypt, so that ``identity`` can read it.

    Raises:
        WrongPassphraseError: It is no identity.
    """
    pyrage = load_pyrage()
    try:
        return str(pyrage.x25519.Identity.from_str(identity).to_public())
    except pyrage.IdentityError:
        raise WrongPassphraseError("The key is not an age identity.") from None


def is_recipient(text: str) -> bool:
    """Whether ``text`` is a recipient, ``age1…``."""
    pyrage = load_pyrage()
    try:
        pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        return False
    return True
