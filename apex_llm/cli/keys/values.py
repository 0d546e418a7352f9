"""Where a credential's value comes from: the terminal, standard input, the environment; never an argument."""

from __future__ import annotations

__all__ = ["Source", "read_value", "value_options"]

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import click

from apex_llm.cli.keys.session import Session
from apex_llm.types.secrets import Secret

F = TypeVar("F", bound=Callable[..., Any])
_Value = str | dict[str, Any]
_INSTEAD = "--stdin, --stdin-json or --from-environment"
_SECRET_NAME = re.compile(
    r"secret|token|password|passphrase|private|credential|(api|account|subscription)_?key|^key$", re.IGNORECASE
)


class _Question(NamedTuple):
    """One member that is asked for where nothing was said about the value."""

    member: str
    prompt: str
    hidden: bool = True
    needed: bool = False


_QUESTIONS = {
    "aws_bedrock": (
        _Question("aws_access_key_id", "Access key id", hidden=False, needed=True),
        _Question("aws_secret_access_key", "Secret access key", needed=True),
        _Question("aws_session_token", "Session token (empty for none)"),
        _Question("aws_region", "Region (empty for the environment's)", hidden=False),
    ),
    "azure_openai": (
        _Question("api_base", "Endpoint (https://<resource>.openai.azure.com)", hidden=False, needed=True),
        _Question("api_key", "API key", needed=True),
        _Question("api_version", "API version (empty for v1)", hidden=False),
    ),
}


class Source(NamedTuple):
    """What the options said about where the value is."""

    stdin: bool
    stdin_json: bool
    from_environment: tuple[str, ...]
    members: tuple[str, ...]
    settings: tuple[str, ...]
    update: bool


def value_options(command: F) -> F:
    """The options that ``read_value`` needs, given to the command as ``source``."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **given: Any) -> Any:
        given["source"] = Source(**{name: given.pop(name) for name in Source._fields})
        return command(*arguments, **given)

    for option in reversed(
        (
            click.option("--stdin", is_flag=True, help="Read the value from standard input, as it is."),
            click.option("--stdin-json", is_flag=True, help="Read a dictionary from standard input, as JSON."),
            click.option(
                "--from-environment",
                multiple=True,
                metavar="[MEMBER=]VARIABLE",
                help="Take the value, or one member of a dictionary, from an environment variable. May be repeated.",
            ),
            click.option(
                "--member",
                "members",
                multiple=True,
                metavar="MEMBER",
                help="Ask for this member of a dictionary. May be repeated.",
            ),
            click.option(
                "--setting",
                "settings",
                multiple=True,
                metavar="MEMBER=TEXT",
                help="A member that is no secret, such as aws_region=eu-central-1. May be repeated.",
            ),
            click.option("--update", is_flag=True, help="Keep the other members of the dictionary that is stored."),
        )
    ):
        wrapped = option(wrapped)
    return cast("F", wrapped)


def read_value(session: Session, service: str, source: Source, *, stored: str | dict[str, Any] | None) -> _Value:
    """The value that the options, or somebody at the terminal, give.

    Args:
        session: Asks and reads.
        service: Whose credential.
        source: The options.
        stored: What is in the store now, for ``--update``.
    """
    members: dict[str, Any] = {}
    whole: str | None = None
    if source.update:
        if not isinstance(stored, dict):
            raise click.UsageError(f"--update needs a dictionary in the store; {service} has none.")
        members |= stored
    if source.stdin and source.stdin_json:
        raise click.UsageError("Give --stdin or --stdin-json, not both.")
    if source.stdin_json:
        members |= _dictionary(session.read_standard_input())
    elif source.stdin:
        whole = session.read_standard_input()
    named, alone = _variables(session, source.from_environment)
    members |= named
    if alone is not None:
        if whole is not None:
            raise click.UsageError("Two whole values were given.")
        whole = alone
    for name in source.members:
        members[name] = session.ask_secret(name, instead=_INSTEAD).reveal()
    members |= _settings(source)
    if whole is not None:
        if members:
            raise click.UsageError("A value is one text or a dictionary of members, not both.")
        return whole
    if not members:
        return _asked(session, service)
    if source.settings and not (source.update or source.stdin_json or source.members or named):
        raise click.UsageError("These are settings without a secret. Add --update to keep the secret that is stored.")
    return members


def _asked(session: Session, service: str) -> _Value:
    questions = _QUESTIONS.get(service)
    if questions is None or not session.has_terminal():
        return _needed(session.ask_secret(f"Value of {service}", instead=_INSTEAD), "value")
    members: dict[str, Any] = {}
    for question in questions:
        if question.hidden:
            text = session.ask_secret(question.prompt, instead=_INSTEAD).reveal()
        else:
            text = click.prompt(question.prompt, default="", show_default=False, err=True)
        if text := text.strip():
            members[question.member] = text
        elif question.needed:
            raise click.ClickException(
                f"{question.member} is needed. Nothing was stored. For a credential of another shape, give --member, "
                "--stdin or --stdin-json."
            )
    return members


def _needed(secret: Secret, what: str) -> str:
    if not secret:
        raise click.ClickException(f"The {what} is empty. Nothing was stored.")
    return secret.reveal()


def _dictionary(text: str) -> dict[str, Any]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        found = None  # the error's text could quote the secret
    if not isinstance(found, dict) or not found:
        raise click.UsageError('Standard input is not a JSON object such as {"api_key": "..."}.')
    return cast("dict[str, Any]", found)


def _variables(session: Session, given: tuple[str, ...]) -> tuple[Mapping[str, str], str | None]:
    members: dict[str, str] = {}
    whole: str | None = None
    for each in given:
        member, separator, variable = each.rpartition("=")
        if separator and member:
            members[member] = session.read_variable(variable)
        elif whole is not None or separator:
            raise click.UsageError("--from-environment takes one VARIABLE, or MEMBER=VARIABLE for each member.")
        else:
            whole = session.read_variable(variable)
    return members, whole


def _settings(source: Source) -> Mapping[str, str]:
    members: dict[str, str] = {}
    for each in source.settings:
        member, separator, text = each.partition("=")
        if not separator or not member or not text:
            raise click.UsageError("--setting takes MEMBER=TEXT.")
        if _SECRET_NAME.search(member):
            raise click.UsageError(
                f"{member} sounds like a secret, and arguments can be seen by others. "
                f"Give --member {member} to be asked for it, or --from-environment {member}=VARIABLE."
            )
        members[member] = text
    return members
