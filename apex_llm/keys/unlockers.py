"""Who knows the key of a store: a passphrase, an environment variable, or the system's keyring.

An unlocker yields age identities, the newest first; the store takes the one that fits. None of them
ever keeps a key in a plain file.
"""

from __future__ import annotations

__all__ = [
    "Keyring", "MasterKey", "Passphrase", "PassphraseSource", "Place", "Unlocker", "UnlockerStatus",
    "generate_master_key", "read_master_key",
]  # fmt: skip

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from apex_llm.errors import KeyStoreError, NoUnlockerError, WrongPassphraseError
from apex_llm.keys.bech32 import identity_from_bytes, identity_to_bytes
from apex_llm.keys.keyrings import KeyringBackend, describe_keyring, find_keyring, get_entry, remove_entry, set_entry
from apex_llm.keys.layout import SEALED_IDENTITY
from apex_llm.keys.passphrase import decrypt_with_passphrase, encrypt_with_passphrase, normalized
from apex_llm.types.secrets import Secret

PassphraseSource: TypeAlias = str | Secret | Callable[[], str | Secret | None]
"""The passphrase, or who asks for it; ``None`` from the callback means that there is none."""

_COMMAND_SECONDS = 60.0
_MAX_KEY_TEXT = 4096
_VARIABLE, _FILE, _COMMAND = "APEX_LLM_MASTER_KEY", "APEX_LLM_MASTER_KEY_FILE", "APEX_LLM_MASTER_KEY_COMMAND"


class UnlockerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What ``keys status`` shows of one way to open the store."""

    name: str
    available: bool
    detail: str


class Place(Protocol):
    """What unlockers see of the store."""

    @property
    def name(self) -> str:
        """The directory, resolved."""
        ...

    def read_identity_file(self) -> bytes | None:
        """``identity.age``, checked."""
        ...

    def write_identity_file(self, content: bytes | None) -> None:
        """Replace ``identity.age``, or remove it."""
        ...


class Unlocker(Protocol):
    """One way to the key."""

    name: str
    can_store: bool
    """Whether a new key can be put there."""

    def status(self, place: Place) -> UnlockerStatus:
        """Whether it could be used; asks nobody and starts nothing."""
        ...

    def identities(self, place: Place) -> list[str] | str:
        """Identities, newest first; or, as text, why there are none.

        Raises:
            KeyStoreError: It is set up, but wrongly.
        """
        ...

    def prepare(self, bundles: Sequence[list[str]]) -> list[Callable[[Place], None]]:
        """Do what takes long, and return for each bundle of identities what then puts it in place."""
        ...

    def forget(self, place: Place) -> None:
        """Remove what was put there."""
        ...


def generate_master_key() -> Secret:
    """A new master key: base64 of 32 random bytes, for ``APEX_LLM_MASTER_KEY``."""
    return Secret(base64.b64encode(os.urandom(32)).decode(), name="master_key")


def read_master_key(text: str, *, source: str) -> str:
    """The age identity that a master key stands for.

    Args:
        text: Base64 of 32 bytes, or an ``AGE-SECRET-KEY-1…`` such as a recovery key.
        source: Where it came from, for the message.

    Raises:
        WrongPassphraseError: It is neither.
    """
    text = text.strip()
    try:
        if text[:15].upper() == "AGE-SECRET-KEY-":
            return identity_from_bytes(identity_to_bytes(text))
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        if len(key) == 32 and len(set(key)) > 1:
            return identity_from_bytes(key)
        what = f"base64 of {len(key)} bytes"
        if len(key) == 32:
            what = "one byte repeated"
    except (ValueError, binascii.Error):
        what = "something else"
    raise WrongPassphraseError(
        f"{source} does not hold a master key: it is {what}.",
        hint="A master key is base64 of 32 random bytes: head -c 32 /dev/urandom | base64",
    )


class Passphrase:
    """The identity is in ``identity.age``, encrypted with a passphrase."""

    name = "passphrase"
    can_store = True

    def __init__(self, source: PassphraseSource | None) -> None:
        self._source = Secret(source, name="passphrase") if isinstance(source, str) else source

    def __repr__(self) -> str:
        return f"Passphrase(given={self._source is not None})"

    def status(self, place: Place) -> UnlockerStatus:
        """Whether it could be used."""
        try:
            there = place.read_identity_file() is not None
        except KeyStoreError as error:
            return UnlockerStatus(name=self.name, available=False, detail=error.message)
        detail = "identity.age is there" if there else "the store has no identity.age"
        if self._source is None:
            detail += "; no passphrase was given"
        return UnlockerStatus(name=self.name, available=there and self._source is not None, detail=detail)

    def identities(self, place: Place) -> list[str] | str:
        """Identities, newest first; or why there are none."""
        content = place.read_identity_file()
        if content is None:
            return "the store has no identity.age"
        given = self._ask()
        if given is None:
            return "identity.age is there, but no passphrase was given"
        plaintext = decrypt_with_passphrase(content, given, what=SEALED_IDENTITY)
        found = [
            line.strip() for line in plaintext.decode("utf-8", "replace").splitlines() if line and line[0] not in "#\r"
        ]
        try:
            return [identity_from_bytes(identity_to_bytes(line)) for line in found[:10]]
        except ValueError:
            raise KeyStoreError(f"{SEALED_IDENTITY} was decrypted, but does not hold age identities.") from None

    def prepare(self, bundles: Sequence[list[str]]) -> list[Callable[[Place], None]]:
        """What puts each bundle of identities in place."""
        given = self._ask()
        if given is None:
            raise NoUnlockerError("No passphrase was given.", hint="Give passphrase=, a string or a function.")
        return [self._prepared(identities, given) for identities in bundles]

    def _prepared(self, identities: list[str], given: str) -> Callable[[Place], None]:
        text = "".join(f"{identity}\n" for identity in identities).encode()
        content = encrypt_with_passphrase(text, given)
        if decrypt_with_passphrase(content, given, what=SEALED_IDENTITY) != text:
            raise KeyStoreError("The new identity.age could not be read back. Nothing was changed.")
        return lambda place: place.write_identity_file(content)

    def forget(self, place: Place) -> None:
        """Remove ``identity.age``."""
        place.write_identity_file(None)

    def _ask(self) -> str | None:
        given = self._source() if callable(self._source) else self._source
        if isinstance(given, Secret):
            given = given.reveal()
        return None if given is None else normalized(given)


class MasterKey:
    """The identity is in an argument or the environment: as text, in a file, or printed by a command."""

    name = "master key"
    can_store = False

    def __init__(self, given: str | Secret | None, environ: Mapping[str, str]) -> None:
        self._given = Secret(given, name="master_key") if given is not None else None
        self._environ = environ

    def __repr__(self) -> str:
        return f"MasterKey(given={self._given is not None})"

    def _source(self) -> str | None:
        if self._given is not None:
            return "master_key="
        return next((name for name in (_VARIABLE, _FILE, _COMMAND) if self._environ.get(name)), None)

    def status(self, place: Place) -> UnlockerStatus:
        """Whether it could be used."""
        source = self._source()
        detail = f"{source} is given" if source else f"none of {_VARIABLE}, {_FILE}, {_COMMAND} is set"
        return UnlockerStatus(name=self.name, available=source is not None, detail=detail)

    def identities(self, place: Place) -> list[str] | str:
        """Identities, newest first; or why there are none."""
        source = self._source()
        if source is None:
            return f"none of {_VARIABLE}, {_FILE}, {_COMMAND} is set"
        if self._given is not None:
            text = self._given.reveal()
        elif source == _FILE:
            text = _from_file(self._environ[_FILE])
        elif source == _COMMAND:
            text = _from_command(self._environ[_COMMAND])
        else:
            text = self._environ[_VARIABLE]
        return [read_master_key(text, source=source)]

    def prepare(self, bundles: Sequence[list[str]]) -> list[Callable[[Place], None]]:
        """What puts each bundle of identities in place."""

        def nothing(_: Place) -> None:
            """The operator keeps the key."""

        return [nothing for _ in bundles]

    def forget(self, place: Place) -> None:
        """Only the operator can."""


def _from_file(name: str) -> str:
    path = Path(name)
    try:
        if not path.is_file():
            raise WrongPassphraseError(f"{_FILE} does not name a file: {name}")
        with path.open("rb") as file:
            return file.read(_MAX_KEY_TEXT).decode("ascii", "replace")
    except OSError as error:
        raise WrongPassphraseError(f"{_FILE} cannot be read: {os.strerror(error.errno or 0)}: {name}") from error


def _from_command(command: str) -> str:
    hint = "It is started without a shell, and prints the key on standard output."
    try:
        words = shlex.split(command)
        if not words:
            raise WrongPassphraseError(f"{_COMMAND} is empty.", hint=hint)
        done = subprocess.run(  # noqa: S603 - the operator's own command
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise WrongPassphraseError(
            f"The command in {_COMMAND} took longer than {_COMMAND_SECONDS:g} seconds.", hint=hint
        ) from None
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a command line"
        raise WrongPassphraseError(f"The command in {_COMMAND} could not be started: {reason}.", hint=hint) from None
    if done.returncode:
        raise WrongPassphraseError(f"The command in {_COMMAND} ended with code {done.returncode}.", hint=hint)
    return done.stdout[:_MAX_KEY_TEXT].decode("ascii", "replace")


class Keyring:
    """The identity is in the system's keyring."""

    name = "keyring"
    can_store = True

    def __init__(self, backend: KeyringBackend | None = None) -> None:
        self._backend = backend

    def __repr__(self) -> str:
        return "Keyring()"

    def status(self, place: Place) -> UnlockerStatus:
        """Whether it could be used."""
        available, detail = describe_keyring(self._backend)
        return UnlockerStatus(name=self.name, available=available, detail=detail)

    def identities(self, place: Place) -> list[str] | str:
        """Identities, newest first; or why there are none."""
        backend = self._backend or find_keyring()
        if isinstance(backend, str):
            return backend
        held = get_entry(backend, place.name)
        if isinstance(held, str) and not held.startswith("AGE-"):
            return held
        if not held:
            return "the keyring has no entry for this store"
        return [read_master_key(line, source="The keyring") for line in held.split()[:10]]

    def prepare(self, bundles: Sequence[list[str]]) -> list[Callable[[Place], None]]:
        """What puts each bundle of identities in place."""
        backend = self._backend or find_keyring()
        if isinstance(backend, str):
            raise NoUnlockerError(f"The keyring cannot be used: {backend}.", hint="Use a passphrase or a master key.")

        def put(identities: list[str]) -> Callable[[Place], None]:
            return lambda place: set_entry(backend, place.name, "\n".join(identities))

        return [put(identities) for identities in bundles]

    def forget(self, place: Place) -> None:
        """Remove the entry."""
        backend = self._backend or find_keyring()
        if not isinstance(backend, str):
            remove_entry(backend, place.name)
