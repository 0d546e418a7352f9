"""What the key manager tells about itself: values without secrets, for people and for ``--json``."""

from __future__ import annotations

__all__ = [
    "CredentialInfo", "ImportReport", "MigrationReport", "RotationStatus", "StoreStatus", "Verification",
]  # fmt: skip

import msgspec

from apex_llm.keys.document import Kind
from apex_llm.keys.unlockers import UnlockerStatus


class CredentialInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One stored credential, without its value."""

    service: str
    kind: Kind
    members: tuple[str, ...]
    """Names in the dictionary; empty for a plain string."""
    created: float
    """Seconds since the epoch."""
    rotated: float
    fingerprint: str
    has_previous: bool
    retire_at: float | None


class RotationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of key: when it was rotated, and whether it should be."""

    which: str
    last_rotated: float | None
    """Seconds since the epoch; of the oldest one, where there are several."""
    interval_days: float | None
    due_at: float | None
    is_due: bool
    services: tuple[str, ...] = ()
    """Those that are due, for credentials."""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the store is, how it can be opened, and what is known without opening it."""

    path: str
    exists: bool
    opened: bool
    opened_by: str | None
    generation: int | None
    """``None`` until it has been opened."""
    services: int | None
    plugins: int | None
    access_control: bool | None
    recovery_key: bool | None
    """Whether a recovery key exists."""
    rotation_pending: bool | None
    """Whether the former master key still opens it, until it is saved with the new one."""
    unlockers: tuple[UnlockerStatus, ...]
    backups: tuple[str, ...]
    isolation: str
    audit: str
    strict: bool
    anchored: bool
    """Whether an older store put in place of this one would be noticed by a new process."""
    problems: tuple[str, ...] = ()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What ``verify`` found."""

    ok: bool
    problems: tuple[str, ...]
    generation: int | None
    audit_lines: int
    backups: dict[str, int]
    """Backups that open, with their generation."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did, by service."""

    imported: tuple[str, ...]
    unchanged: tuple[str, ...]
    skipped: tuple[str, ...]
    """Already there with another value."""


class MigrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a migration did."""

    api_keys: tuple[str, ...]
    oauth_tokens: tuple[str, ...]
    original: str
    """Where the older file is now."""
