"""Keeps known secrets out of logs, in the spellings in which they get there.

A last net, not a licence: it knows the values that the store holds or held, as they are, in base64
(at any offset, both alphabets), URL-encoded, in hexadecimal, and as JSON and Python would quote them.
"""

from __future__ import annotations

__all__ = ["RedactingFilter", "Redactor", "secret_parts"]

import json
import logging
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote, quote_plus

_SHORTEST = 6
_MASK = "[redacted]"
# Members of a credential that are settings, and would only make logs unreadable.
_HARMLESS = re.compile(
    r"region|endpoint|base|version|url|type|scope|expires|deployment|model|profile|tenant|name|default|account",
    re.IGNORECASE,
)
_SECRET_WORD = re.compile(r"secret|token|pass(word|phrase)|private|credential|keys?$", re.IGNORECASE)
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def secret_parts(value: object, name: str = "") -> Iterator[str]:
    """The strings in a credential that must not be seen."""
    if isinstance(value, str):
        if len(value) >= _SHORTEST and (not _HARMLESS.search(name) or _SECRET_WORD.search(name)):
            yield value
    elif isinstance(value, Mapping):
        for key, part in cast("Mapping[Any, Any]", value).items():
            yield from secret_parts(part, str(key))
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from secret_parts(part, name)


def _spellings(secret: str) -> set[str]:
    content = secret.encode("utf-8", "surrogatepass")
    found = {
        secret,
        content.hex(),
        content.hex().upper(),
        quote(content, safe=""),
        quote(content),
        quote_plus(content),
        quote(content, safe="").replace("%", "%25"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        repr(secret)[1:-1],
        repr(content)[2:-1],
    }
    for offset in range(3):
        # What stands before and after decides the characters at both ends: leave those out.
        text = b64encode(b"\0" * offset + content).decode().rstrip("=")
        text = text[(0, 2, 3)[offset] :]
        if (offset + len(content)) % 3:
            text = text[:-1]
        found |= {text, text.replace("+", "-").replace("/", "_")}
        found.add(quote(text, safe=""))
    return {spelling for spelling in found if len(spelling) >= _SHORTEST}


def _printed_apart(secret: str) -> list[str]:
    """The secret, and its lines if it has several, as a private key has: logs print line by line."""
    lines = secret.splitlines()
    return (
        [secret, *(line for line in lines if len(line) >= 16 and not line.startswith("--"))] if lines[1:] else [secret]
    )


class Redactor:
    """Replaces known secrets in text by ``[redacted]``. Threads may share it.

    Spellings are found by their first characters, so the cost depends on the text and not on how many
    secrets are known.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._by_beginning: dict[str, tuple[str, ...]] = {}
        self._mutex = threading.Lock()
        self.add(*secrets)

    def __repr__(self) -> str:
        return f"Redactor({len(self._known)} secrets)"

    def add(self, *secrets: str) -> None:
        """Learn secrets; shorter than six characters they are ignored, as they would blot out words."""
        with self._mutex:
            for secret in {secret for secret in secrets if len(secret) >= _SHORTEST} - self._known:
                self._known.add(secret)
                for spelling in {form for part in _printed_apart(secret) for form in _spellings(part)}:
                    beginning = spelling[:_SHORTEST]
                    others = self._by_beginning.get(beginning, ())
                    self._by_beginning[beginning] = tuple(sorted({*others, spelling}, key=len, reverse=True))

    def redact(self, text: str) -> str:
        """``text`` without the secrets."""
        known = self._by_beginning
        if not known:
            return text
        kept: list[str] = []
        done = at = 0
        last = len(text) - _SHORTEST
        while at <= last:
            for spelling in known.get(text[at : at + _SHORTEST], ()):
                if text.startswith(spelling, at):
                    kept += (text[done:at], _MASK)
                    at = done = at + len(spelling)
                    break
            else:
                at += 1
        return text if not done else "".join((*kept, text[done:]))


class RedactingFilter(logging.Filter):
    """Redacts message, arguments, traceback and extra attributes of each record.

    Add it to handlers: a filter on a logger does not see what its children log.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass."""
        redact = self._redactor.redact
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit; logging would print them as they are
            message = f"{record.msg} (its arguments did not fit and were left out)"
        redacted = redact(message)
        if redacted != message or record.args:
            record.msg, record.args = redacted, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
            # Formatters that make their own text of the exception must not get it.
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in list(vars(record).items()):
            if name in _STANDARD_ATTRIBUTES:
                continue
            if isinstance(value, str):
                setattr(record, name, redact(value))
            elif not isinstance(value, (int, float, bool, type(None))):
                shown = repr(value)
                if (clean := redact(shown)) != shown:
                    setattr(record, name, clean)
        return True
