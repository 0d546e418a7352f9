"""The system's keyring, where one works: macOS Keychain, Windows Credential Locker, Secret Service, KWallet.

On a headless Linux the library ``keyring`` has nothing to offer and raises, or offers a backend that
writes plain text. Neither is used, ever.
"""

from __future__ import annotations

__all__ = [
    "KeyringAnchor", "KeyringBackend", "describe_keyring", "find_keyring", "get_entry", "remove_entry", "set_entry",
]  # fmt: skip

import contextlib
from pathlib import Path
from typing import Any, Protocol, cast

from apex_llm.errors import KeyStoreError

_SERVICE = "apex-llm"
_TRUSTED = (
    "keyring.backends.macOS",
    "keyring.backends.Windows",
    "keyring.backends.SecretService",
    "keyring.backends.kwallet",
    "keyring.backends.libsecret",
)


class KeyringBackend(Protocol):
    """What is used of a backend of ``keyring``."""

    def get_password(self, service: str, username: str) -> str | None:
        """An entry, or ``None``."""
        ...

    def set_password(self, service: str, username: str, password: str) -> None:
        """Write an entry."""
        ...

    def delete_password(self, service: str, username: str) -> None:
        """Remove an entry."""
        ...


def find_keyring() -> KeyringBackend | str:
    """A backend that encrypts; or, as text, why there is none."""
    try:
        import keyring  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "the package keyring is not installed"
    try:
        chosen = cast("Any", keyring.get_keyring())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        candidates: list[Any] = [chosen, *cast("list[Any]", getattr(chosen, "backends", []))]
    except Exception as error:  # noqa: BLE001 - backends raise what they like
        return f"the keyring does not work here ({type(error).__name__})"
    for backend in candidates:
        if type(backend).__module__.startswith(_TRUSTED):
            return backend
    return "there is no system keyring here, or only one that would write plain text"


def describe_keyring(backend: KeyringBackend | None) -> tuple[bool, str]:
    """Whether there is one, and its name or why not."""
    found = backend or find_keyring()
    if isinstance(found, str):
        return False, found
    return True, type(found).__module__.rpartition(".")[2]


def get_entry(backend: KeyringBackend, name: str) -> str | None:
    """The entry; or, as text that begins otherwise, why it cannot be had."""
    try:
        return backend.get_password(_SERVICE, name)
    except Exception as error:  # noqa: BLE001 - locked, no session bus, refused by the user
        return f"the keyring refused ({type(error).__name__})"


def set_entry(backend: KeyringBackend, name: str, value: str) -> None:
    """Write an entry, and read it back.

    Raises:
        KeyStoreError: The keyring did not take it.
    """
    try:
        backend.set_password(_SERVICE, name, value)
        held = backend.get_password(_SERVICE, name)
    except Exception as error:
        raise KeyStoreError(
            f"The keyring refused to keep the key ({type(error).__name__}).",
            hint="Unlock it, or use a passphrase or APEX_LLM_MASTER_KEY.",
        ) from error
    if held != value:
        raise KeyStoreError("The keyring did not keep what was written.", hint="Use a passphrase or a master key.")


def remove_entry(backend: KeyringBackend, name: str) -> None:
    """Remove an entry, if it is there."""
    with contextlib.suppress(Exception):
        backend.delete_password(_SERVICE, name)


class KeyringAnchor:
    """Keeps a store's generation in the keyring, so that an older store put in its place is noticed."""

    def __init__(self, path: str | Path, *, backend: KeyringBackend | None = None) -> None:
        self._name = f"{Path(path).expanduser().resolve()}#generation"
        self._backend = backend

    def _found(self) -> KeyringBackend:
        found = self._backend or find_keyring()
        if isinstance(found, str):
            raise KeyStoreError(
                f"The anchor of the store cannot be read: {found}.", hint="Open the store without anchor=."
            )
        return found

    def read(self) -> str | None:
        """What ``write`` was last given."""
        try:
            return self._found().get_password(_SERVICE, self._name)
        except KeyStoreError:
            raise
        except Exception as error:
            raise KeyStoreError(
                f"The anchor of the store cannot be read: the keyring refused ({type(error).__name__})."
            ) from error

    def write(self, value: str) -> None:
        """Keep ``value``."""
        set_entry(self._found(), self._name, value)
