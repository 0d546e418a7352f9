"""The credential store: an encrypted file, who may have what of it, and who asked.

``ApiKeyManager`` is the door; ``PluginHandle`` is what a plugin is given. The store is an age file
(https://age-encryption.org), read and written by pyrage (extra ``[keys]``), which is imported when a
store is opened. Sits beside ``transport`` and ``credentials``, and knows neither.
"""

from __future__ import annotations

__all__ = [
    "Anchor", "ApiKeyManager", "AuditEntry", "AuditMode", "CreatedStore", "CredentialInfo", "Grant", "ImportReport",
    "Keyring", "KeyringAnchor", "MasterKey", "MigrationReport", "Passphrase", "PluginHandle", "ProviderAccess",
    "RedactingFilter", "Redactor", "RotationStatus", "StoreStatus", "Unlocker", "UnlockerStatus", "Verification",
    "check_name", "find_keyring", "prompt_passphrase",
]  # fmt: skip

from apex_llm.keys.audit import AuditEntry
from apex_llm.keys.custodian import AuditMode
from apex_llm.keys.document import Grant, check_name
from apex_llm.keys.handles import PluginHandle, ProviderAccess
from apex_llm.keys.keyrings import KeyringAnchor, find_keyring
from apex_llm.keys.lineage import Anchor
from apex_llm.keys.manager import ApiKeyManager, CreatedStore
from apex_llm.keys.passphrase import prompt_passphrase
from apex_llm.keys.redaction import RedactingFilter, Redactor
from apex_llm.keys.reports import (
    CredentialInfo,
    ImportReport,
    MigrationReport,
    RotationStatus,
    StoreStatus,
    Verification,
)
from apex_llm.keys.unlockers import Keyring, MasterKey, Passphrase, Unlocker, UnlockerStatus
