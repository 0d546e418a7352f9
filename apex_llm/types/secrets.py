"""Secret values, and the protocols by which credentials reach the code that signs.

A ``Secret`` shows a fingerprint instead of itself wherever it might be printed; the one
way to the value is ``reveal()``, which is easy to search for.
"""

from __future__ import annotations

__all__ = ["AccessToken", "AwsCredentials", "CredentialSource", "Secret"]

import hashlib
import hmac
import os
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

import msgspec

_FINGERPRINT_KEY = os.urandom(16)
# Keyed with bytes that die with the process: a fingerprint in a log tells two secrets
# apart, but cannot be tested against guesses later.

T_co = TypeVar("T_co", covariant=True)


class Secret:
    """A string that does not print, pickle, copy or hash; equality takes constant time."""

    __slots__ = ("_name", "_value")

    def __init__(self, value: str | Secret, *, name: str = "secret") -> None:
        self._value: str = value.reveal() if isinstance(value, Secret) else value
        self._name = name

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that tell two secrets apart within this process."""
        return hashlib.blake2b(
            self._value.encode(errors="surrogatepass"), digest_size=4, key=_FINGERPRINT_KEY
        ).hexdigest()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__: ClassVar[None]  # pyright: ignore[reportIncompatibleMethodOverride] # a hash would let guesses be tested

    def __repr__(self) -> str:
        return f"Secret({self._name}, fp={self.fingerprint})"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Secret cannot be pickled or copied; call reveal() where the value is needed.")

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self.__reduce__()


class AwsCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Key, secret and session token of one principal: one atomic value, never mixed from two sources."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None
    expires_at: float | None = None
    """Seconds since the epoch; ``None`` for credentials that do not expire."""
    source: str = "explicit"
    """Where they were found, for messages and logs."""


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """A bearer token, or a key that is sent as it is."""

    value: Secret
    expires_at: float | None = None
    """Seconds since the epoch; ``None`` for tokens that do not say."""
    source: str = "explicit"


class CredentialSource(Protocol[T_co]):
    """What an authentication layer needs from whoever keeps credentials fresh."""

    def current(self) -> T_co | None:
        """The credentials, if they are at hand and fresh: no I/O, so that signing stays inline."""
        ...

    async def get(self) -> T_co:
        """The credentials, fetched or refreshed where needed; one fetch serves all waiters."""
        ...

    def invalidate(self) -> None:
        """Forget what is cached: the service said that it has expired."""
        ...
