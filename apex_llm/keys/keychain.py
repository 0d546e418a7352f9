"""Which keys open a store: asked of its unlockers when they are needed, and kept while they fit."""

from __future__ import annotations

__all__ = ["Keychain"]

from collections.abc import Callable, Sequence

from apex_llm.errors import NoUnlockerError, WrongPassphraseError
from apex_llm.keys.agefile import check_header, decrypt, new_identity, recipient_of
from apex_llm.keys.unlockers import Place, Unlocker


class Keychain:
    """The identities of one store, and who knows them. Threads do not share it: the vault sees to that."""

    def __init__(self, unlockers: Sequence[Unlocker], place: Place) -> None:
        self.unlockers: list[Unlocker] = list(unlockers)
        self.opened_by: Unlocker | None = None
        self.identities: list[str] = []
        """Those in use, the newest first; empty until the store was opened, and when it was closed."""
        self._place = place

    def __repr__(self) -> str:
        return f"Keychain({', '.join(unlocker.name for unlocker in self.unlockers)})"

    def forget(self) -> None:
        """Drop the identities, as far as Python allows."""
        self.identities = []

    def opens(self, recipient: str | None) -> bool:
        """Whether an identity in use is the one of ``recipient``."""
        return recipient in {recipient_of(identity) for identity in self.identities}

    def for_new_store(self, by: Unlocker | None) -> tuple[Unlocker, list[str], Callable[[Place], None]]:
        """Who will open a new store, with which identities, and what puts them there.

        Raises:
            NoUnlockerError: Nothing could keep or give a key.
        """
        refusals: list[str] = []
        for unlocker in [by] if by is not None else self.unlockers:
            # One that has a key already: the operator's, or one left by a creation that was cut short.
            found = unlocker.identities(self._place)
            if not isinstance(found, str):
                return unlocker, found, _nothing_to_do
            refusals.append(f"{unlocker.name}: {found}")
            if unlocker.can_store:
                identity = new_identity()
                try:
                    (commit,) = unlocker.prepare([[identity]])
                except NoUnlockerError:
                    continue
                return unlocker, [identity], commit
        raise self._nothing_opens(refusals)

    def decrypted(self, content: bytes, *, what: str) -> bytes:
        """What a store holds.

        Raises:
            NoUnlockerError: Nobody knows a key.
            WrongPassphraseError: Somebody does, but it is another one.
            KeyStoreError: The file is damaged, or an unlocker is set up wrongly.
        """
        check_header(content, expected="X25519", what=what)
        if self.identities:
            try:
                return decrypt(content, self.identities, what=what)
            except WrongPassphraseError:
                self.identities = []  # rotated by another process, perhaps
        refusals: list[str] = []
        mismatch: WrongPassphraseError | None = None
        for unlocker in self.unlockers:
            found = unlocker.identities(self._place)
            if isinstance(found, str):
                refusals.append(f"{unlocker.name}: {found}")
                continue
            try:
                plaintext = decrypt(content, found, what=what)
            except WrongPassphraseError as error:
                mismatch = mismatch or error
                refusals.append(f"{unlocker.name}: another key")
                continue
            self.identities, self.opened_by = found, unlocker
            return plaintext
        if mismatch is not None:
            raise mismatch
        raise self._nothing_opens(refusals)

    def _nothing_opens(self, refusals: Sequence[str]) -> NoUnlockerError:
        return NoUnlockerError(
            f"Nothing that could open the key store in {self._place.name} was given ({'; '.join(refusals)}).",
            hint="Give passphrase=, set APEX_LLM_MASTER_KEY, APEX_LLM_MASTER_KEY_FILE or "
            "APEX_LLM_MASTER_KEY_COMMAND, or use a system keyring.",
        )


def _nothing_to_do(place: Place) -> None:
    """The key is where it belongs."""
