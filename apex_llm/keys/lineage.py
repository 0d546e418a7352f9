"""What is known of a store's past, so that an older one, another one, or none at all is not taken for it."""

from __future__ import annotations

__all__ = ["Anchor", "Lineage", "traces_of_a_store"]

import logging
from collections.abc import Sequence
from typing import Protocol

from apex_llm.errors import KeyStoreError, TamperedError, UnsupportedFormatError
from apex_llm.keys.audit import tells_of_no_store
from apex_llm.keys.document import Document
from apex_llm.keys.files import Directory
from apex_llm.keys.layout import AUDIT_FILE, BACKUPS, STORE_FILE

_MAX_BEGUN_LOG = 1 << 10
_LOG = logging.getLogger(__name__)


class Anchor(Protocol):
    """Keeps one short text outside the store, so that an older store put in its place is noticed."""

    def read(self) -> str | None:
        """What was last written."""
        ...

    def write(self, value: str) -> None:
        """Keep ``value``."""
        ...


def traces_of_a_store(directory: Directory) -> list[str]:
    """What a store leaves when it goes. A creation that was cut short leaves a log too, which is none."""
    names = directory.names()
    traces = [name for name in names if name in BACKUPS]
    if AUDIT_FILE in names:
        try:
            found = directory.read(AUDIT_FILE, limit=_MAX_BEGUN_LOG)
        except UnsupportedFormatError:  # it is longer
            return [*traces, AUDIT_FILE]
        if found is not None and not tells_of_no_store(found[0]):
            traces.append(AUDIT_FILE)
    return traces


class Lineage:
    """The newest state of one store that was seen: by this process, and by whoever keeps its anchor."""

    def __init__(self, path: str, anchor: Anchor | None, minimum_generation: int) -> None:
        self._path = path
        self._anchor = anchor
        self._minimum_generation = minimum_generation
        self._known = ("", 0)

    @property
    def anchored(self) -> bool:
        """Whether there is an anchor."""
        return self._anchor is not None

    def anchor(self) -> str | None:
        """What the anchor holds. To be read before the file: a writer between must make it look newer, never older."""
        return None if self._anchor is None else self._anchor.read()

    def saw(self, document: Document) -> None:
        """Remember a state that was read or written."""
        self._known = (document.store_id, document.generation)

    def move_anchor(self, document: Document) -> None:
        """Let the anchor hold a state that is durable: one that is ahead would refuse the store."""
        if self._anchor is None:
            return
        try:
            self._anchor.write(f"{document.store_id}:{document.generation}")
        except Exception as error:  # noqa: BLE001 - an anchor that lags behind only promises less
            _LOG.warning("The anchor of the key store could not be written (%s).", type(error).__name__)

    def check_absence(self, traces: Sequence[str], anchored: str | None) -> None:
        """Return if there has never been a store.

        Raises:
            KeyStoreError: Somebody took it away.
        """
        if not traces and not anchored and not self._known[1] and not self._minimum_generation:
            return
        trace = traces[0] if traces else "the generation that was last seen"
        raise KeyStoreError(
            f"{self._path} is missing, but there was one: {trace} is still known.",
            hint=f"Restore it: cp {STORE_FILE}.bak.1 {STORE_FILE}. Or remove every trace to begin a new store.",
        )

    def check(self, document: Document, anchored: str | None) -> None:
        """Return if a state may follow what was seen.

        Raises:
            TamperedError: It is older, or of another store.
        """
        floor = self._minimum_generation
        known_id, known_generation = self._known
        if known_id:
            floor = max(floor, known_generation)
        if anchored:
            anchored_id, _, anchored_generation = anchored.partition(":")
            known_id = known_id or anchored_id
            floor = max(floor, int(anchored_generation) if anchored_generation.isdecimal() else 0)
        if known_id and document.store_id != known_id:
            raise TamperedError(
                f"{self._path} is another store than the one that was there before.",
                hint="Somebody replaced it. Backups of the former one may be beside it.",
            )
        if document.generation < floor:
            raise TamperedError(
                f"{self._path} is of generation {document.generation}, but {floor} has been seen: "
                "an older store was put in its place.",
                hint="If you restored a backup yourself, begin a new anchor and open it in a new process.",
            )
