"""The names of the files in a store's directory; ``docs/reference/key-store-format.md`` says what each of them is."""

from __future__ import annotations

__all__ = ["AUDIT_FILE", "BACKUPS", "LOCK_FILE", "SEALED_IDENTITY", "STORE_FILE", "STORE_TWINS"]

from apex_llm.keys.files import SECOND_NAME

STORE_FILE = "store.age"
BACKUPS = tuple(f"{STORE_FILE}.bak.{number}" for number in (1, 2, 3))
STORE_TWINS = (SECOND_NAME, BACKUPS[0])
"""What else the store's file may be called while it becomes a backup, or after that was cut short."""
SEALED_IDENTITY = "identity.age"
AUDIT_FILE = "audit.jsonl"
LOCK_FILE = "store.lock"
