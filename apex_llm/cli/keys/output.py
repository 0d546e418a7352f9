"""How the commands print: tables for people, JSON for programs, nothing that steers a terminal."""

from __future__ import annotations

__all__ = ["as_json", "json_option", "moment", "print_json", "printable", "refuse_pipe", "table"]

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON. Times are seconds since the epoch."
)


def as_json(value: Any) -> str:
    """``value`` as indented JSON."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:  # a path whose bytes are no text: escaped, as Python has it
        return json.dumps(msgspec.to_builtins(value), indent=2)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    click.echo(as_json(value))


def moment(seconds: float | None) -> str:
    """A time for people, in UTC; ``-`` for none."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "-"


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: an audit log may have been written by a stranger."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, in columns."""
    shown = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def refuse_pipe(what: str, *, forced: bool, instead: str) -> None:
    """Stop before a secret would go anywhere but to a terminal.

    Args:
        what: The secret.
        forced: The user said that it shall.
        instead: What to do otherwise.
    """
    if not forced and not sys.stdout.isatty():
        raise click.UsageError(
            f"{what} is printed to a terminal only, and standard output is none: a pipe's end may keep it. {instead}"
        )
