"""When keys are due and how they are replaced: the store's master key, its encryption, its recovery key."""

from __future__ import annotations

__all__ = ["Rotating"]

from base64 import b64encode

from apex_llm.errors import ConfigurationError, NoUnlockerError
from apex_llm.keys.agefile import new_identity, recipient_of
from apex_llm.keys.bech32 import identity_to_bytes
from apex_llm.keys.custodian import Custodian
from apex_llm.keys.document import Document, Kind, check_number
from apex_llm.keys.reports import RotationStatus
from apex_llm.keys.unlockers import Keyring, MasterKey, Passphrase, PassphraseSource, Unlocker, read_master_key
from apex_llm.types.secrets import Secret

_DAY = 86_400.0
_WHICH = {
    "master_key": "master_key",
    "master": "master_key",
    "encryption_keys": "encryption_keys",
    "key_encryption_keys": "encryption_keys",
    "data_encryption_keys": "encryption_keys",
    "kek": "encryption_keys",
    "dek": "encryption_keys",
    "all": "encryption_keys",
    "api_keys": "api_keys",
    "api_key": "api_keys",
    "oauth_tokens": "oauth_tokens",
    "oauth_token": "oauth_tokens",
}
_DEFAULT_DAYS = {"master_key": 365.0, "encryption_keys": 90.0, "api_keys": 90.0}
_KINDS: dict[str, Kind] = {"api_keys": "api_key", "oauth_tokens": "oauth_token"}


def _which(name: str) -> str:
    known = _WHICH.get(name)
    if known is None:
        raise ConfigurationError(
            f"There is no kind of key named {name!r}.", hint="master_key, encryption_keys, api_keys or oauth_tokens."
        )
    return known


class Rotating(Custodian):
    """The manager's methods for keys that grow old. A service's own credential: ``rotate_credential``."""

    def check_key_rotation_status(self) -> dict[str, RotationStatus]:
        """When each kind of key was last rotated, and what is due."""
        document = self._vault.snapshot()
        now = self._clock()
        found: dict[str, RotationStatus] = {}
        for which in ("master_key", "encryption_keys", "api_keys", "oauth_tokens"):
            days = _DEFAULT_DAYS.get(which)
            rotated: dict[str, float] = {}
            if document is not None:
                days = document.rotation.days.get(which, days)
                if which in _KINDS:
                    kind = _KINDS[which]
                    rotated = {
                        name: kinds[kind].rotated for name, kinds in document.credentials.items() if kind in kinds
                    }
                elif which in document.rotation.last:
                    rotated = {"": document.rotation.last[which]}
            last = min(rotated.values(), default=None)
            due = None if last is None or days is None else last + days * _DAY
            late = [] if days is None else sorted(name for name, at in rotated.items() if now >= at + days * _DAY)
            found[which] = RotationStatus(
                which=which,
                last_rotated=last,
                interval_days=days,
                due_at=due,
                is_due=due is not None and now >= due,
                services=tuple(name for name in late if name),
            )
        return found

    def set_key_rotation_interval(self, which: str, days: float) -> None:
        """After how many days a kind of key is due.

        Args:
            which: ``master_key``, ``encryption_keys``, ``api_keys`` or ``oauth_tokens``.
            days: More than 0.
        """
        name = _which(which)
        if not 0 < check_number(days, what="days") < 36_500:
            raise ConfigurationError(f"days is a positive number, not {days!r}.")

        def keep(document: Document) -> None:
            document.rotation.days[name] = float(days)

        self._change("set_key_rotation_interval", keep, service=name)

    def rotate_encryption_keys(self, which: str = "all") -> None:
        """Encrypt the store anew. age draws a fresh file key at every save; this one is dated and audited."""
        if _which(which) != "encryption_keys":
            raise ConfigurationError(
                f"{which!r} is not an encryption key.", hint="rotate_master_key() and rotate_credential() do the rest."
            )

        def date(document: Document) -> None:
            document.rotation.last["encryption_keys"] = self._clock()

        self._change("rotate_encryption_keys", date)

    def rotate_master_key(
        self,
        *,
        passphrase: PassphraseSource | None = None,
        master_key: str | Secret | None = None,
        keyring: bool = False,
    ) -> Secret | None:
        """Make a new master key and encrypt the store to it. Backups under the former key are removed.

        Args:
            passphrase: Protect the new key with this passphrase from now on.
            master_key: The new master key, which you have put where ``APEX_LLM_MASTER_KEY`` will find it.
            keyring: Keep the new key in the system's keyring from now on.

        Returns:
            ``None`` where the store's own unlocker holds the new key. Where only you can put it in place
            (``APEX_LLM_MASTER_KEY*``) and gave none: the new master key. The former one keeps opening the
            store until it is first saved by a process that was given the new one.

        Raises:
            NoUnlockerError: There is no keyring that works. The store is as it was.
            KeyStoreError: The store is as it was.
        """
        self.unlock()
        if (passphrase is not None) + (master_key is not None) + keyring > 1:
            raise ConfigurationError("Give one of passphrase=, master_key= and keyring=True.")
        document, keychain = self._vault.snapshot(), self._vault.keychain
        current = keychain.opened_by
        if document is None or current is None:
            raise NoUnlockerError("The store is not open.")
        made: Secret | None = None
        target: Unlocker = current
        if master_key is not None:
            target = MasterKey(master_key, {})
        elif passphrase is not None:
            target = Passphrase(passphrase)
        elif keyring:
            target = next((each for each in keychain.unlockers if isinstance(each, Keyring)), Keyring())
        elif keychain.opens(document.recipients.recovery):
            raise ConfigurationError(
                "The store was opened with its recovery key.",
                hint="Give passphrase=, master_key= or keyring=True for the new key.",
            )
        identity = new_identity()
        if isinstance(target, MasterKey):
            if master_key is None:
                made = _as_master_key(identity)
            else:
                text = master_key.reveal() if isinstance(master_key, Secret) else master_key
                identity = read_master_key(text, source="master_key=")
        if recipient_of(identity) in document.recipients.all():
            raise ConfigurationError("The new master key is the one in use.")
        with self._noted("rotate_master_key") as head:
            self._vault.rotate(target, identity, keep_former=made is not None, head=head)
        return made

    def rotate_recovery_key(self) -> Secret:
        """Make a new recovery key; the former one opens nothing that is saved from now on. Show it once."""
        identity = new_identity()

        def replace(document: Document) -> None:
            document.recipients.recovery = recipient_of(identity)

        self._change("rotate_recovery_key", replace)
        return Secret(identity, name="recovery_key")


def _as_master_key(identity: str) -> Secret:
    return Secret(b64encode(identity_to_bytes(identity)).decode(), name="master_key")
