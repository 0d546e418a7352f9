"""``keys set``, ``list``, ``show`` and ``remove``."""

from __future__ import annotations

__all__ = ["KIND", "list_", "remove", "set_", "show", "stored_value"]

import sys
from typing import Any, Literal

import click

from apex_llm.cli.exit_codes import ExitCode
from apex_llm.cli.keys.output import as_json, json_option, moment, print_json, printable, refuse_pipe, table
from apex_llm.cli.keys.session import Session, pass_session, service_name
from apex_llm.cli.keys.values import Source, read_value, value_options
from apex_llm.keys import ApiKeyManager

_Kind = Literal["api_key", "oauth_token"]
KIND = click.option(
    "--kind",
    type=click.Choice(["api_key", "oauth_token"]),
    default="api_key",
    show_default=True,
    help="Which credential of the service.",
)


def stored_value(manager: ApiKeyManager, service: str, kind: _Kind) -> str | dict[str, Any] | None:
    """What is stored for a service."""
    return manager.get_api_key(service) if kind == "api_key" else manager.get_oauth_token(service)


@click.command("set")
@click.argument("service", type=service_name, metavar="SERVICE")
@KIND
@value_options
@pass_session
def set_(session: Session, service: str, kind: _Kind, source: Source) -> None:
    """Store the credential of SERVICE, such as aws_bedrock or azure_openai.

    You are asked for it, without echo. A former value is replaced; "rotate" keeps it for a while.
    """
    with session.opened() as manager:
        former = stored_value(manager, service, kind)
        value = read_value(session, service, source, stored=former)
        if kind == "api_key":
            manager.set_api_key(service, value)
        else:
            manager.set_oauth_token(service, value)
    click.echo(f"{'Stored' if former is None else 'Replaced'} the {kind} of {service}.", err=True)


@click.command("list")
@json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """List what is stored, without values."""
    with session.opened() as manager:
        found = manager.describe_credentials()
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("Nothing is stored yet. Begin with: apex-llm keys set SERVICE", err=True)
        return
    table(
        ("SERVICE", "KIND", "MEMBERS", "SINCE", "FINGERPRINT"),
        [
            (each.service, each.kind, ", ".join(each.members) or "-", moment(each.rotated), each.fingerprint)
            for each in found
        ],
    )


@click.command
@click.argument("service", type=service_name, metavar="SERVICE")
@KIND
@click.option("--reveal", is_flag=True, help="Print the value itself, on a terminal. It is written to the audit log.")
@click.option("--member", default=None, help="With --reveal: only this member of a dictionary.")
@click.option("--previous", is_flag=True, help="With --reveal: the value before the last rotation, in its overlap.")
@click.option("--force-pipe", is_flag=True, help="With --reveal: print it although standard output is no terminal.")
@json_option
@pass_session
def show(
    session: Session,
    service: str,
    kind: _Kind,
    reveal: bool,
    member: str | None,
    previous: bool,
    force_pipe: bool,
    as_json: bool,
) -> int:
    """Show what is known of the credential of SERVICE; its value only with --reveal."""
    if not reveal:
        if member is not None or previous or force_pipe:
            raise click.UsageError("--member, --previous and --force-pipe go with --reveal.")
        return _describe(session, service, kind, json=as_json)
    if as_json:
        raise click.UsageError("--json never prints a value; a dictionary is revealed as JSON anyway.")
    refuse_pipe(
        "A secret", forced=force_pipe, instead='"keys exec" hands it to a program; --force-pipe prints it all the same.'
    )
    with session.opened(audit="required") as manager:
        # Through the first one in any case, because it is what writes the line of the audit log.
        value = stored_value(manager, service, kind)
        if previous:
            value = manager.get_previous(service, kind=kind)
    if value is None:
        raise _nothing(service, f"previous {kind}" if previous else kind)
    if member is not None:
        if not isinstance(value, dict) or member not in value:
            raise click.ClickException(f"The {kind} of {service} has no member {member!r}.")
        value = value[member]
    click.echo(_revealed(value))
    return ExitCode.DONE


def _revealed(value: Any) -> str:
    if not isinstance(value, str):
        return as_json(value)
    if sys.stdout.isatty():
        return "\n".join(printable(line) for line in value.split("\n"))
    return value


def _nothing(service: str, what: str) -> click.ClickException:
    return click.ClickException(f'There is no {what} of {service}. "apex-llm keys list" shows what there is.')


def _describe(session: Session, service: str, kind: _Kind, *, json: bool) -> int:
    with session.opened() as manager:
        found = next((e for e in manager.describe_credentials() if (e.service, e.kind) == (service, kind)), None)
        permissions = manager.get_plugin_permissions()
    if found is None:
        raise _nothing(service, kind)
    if json:
        print_json(found)
        return ExitCode.DONE
    plugins = sorted(name for name, grants in permissions.items() if any(grant.service == service for grant in grants))
    rows = [
        ("service", found.service),
        ("kind", found.kind),
        ("members", ", ".join(found.members) or "none: one text"),
        ("created", moment(found.created)),
        ("since", moment(found.rotated)),
        ("previous", f"kept until {moment(found.retire_at)}" if found.has_previous else "none"),
        ("fingerprint", found.fingerprint),
        ("granted to", ", ".join(plugins) or "no plugin"),
    ]
    for name, text in rows:
        click.echo(f"{name:<13}{printable(text)}")
    return ExitCode.DONE


@click.command
@click.argument("service", type=service_name, metavar="SERVICE")
@click.option(
    "--kind", type=click.Choice(["api_key", "oauth_token", "all"]), default="all", show_default=True, help="What of it."
)
@pass_session
def remove(session: Session, service: str, kind: str) -> None:
    """Remove the credential of SERVICE. Backups beside the store hold it until three more changes were saved."""
    with session.opened() as manager:
        if not manager.delete_credential(service, kind):
            raise _nothing(service, "credential" if kind == "all" else kind)
    click.echo(f"Removed {'everything' if kind == 'all' else f'the {kind}'} of {service}.", err=True)
