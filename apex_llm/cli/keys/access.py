"""``keys grant``, ``revoke`` and ``permissions``: which plugin may have what."""

from __future__ import annotations

__all__ = ["grant", "permissions", "revoke"]

from datetime import UTC, datetime

import click

from apex_llm.cli.keys.output import json_option, moment, print_json, printable, table
from apex_llm.cli.keys.session import Session, pass_session, plugin_name, service_name


@click.command
@click.argument("plugin", type=plugin_name, metavar="PLUGIN")
@click.argument("services", type=service_name, metavar="SERVICES...", nargs=-1, required=True)
@click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="Only for these models (anthropic.*). May be repeated."
)
@click.option("--days", type=click.FloatRange(0, min_open=True), default=None, help="For how long.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%z"]),
    default=None,
    help="Until when, in UTC if it names no zone.",
)
@click.option("--provider-only", is_flag=True, help="A provider may use it for the plugin; the plugin never sees it.")
@pass_session
def grant(
    session: Session,
    plugin: str,
    services: tuple[str, ...],
    models: tuple[str, ...],
    days: float | None,
    until: datetime | None,
    provider_only: bool,
) -> None:
    """Let PLUGIN have the credentials of SERVICES. A former grant for the same service is replaced."""
    if days is not None and until is not None:
        raise click.UsageError("Give --days or --until, not both.")
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    with session.opened() as manager:
        configured = {name for names in manager.list_configured_services().values() for name in names}
        for service in services:
            made = manager.grant(
                plugin, service, models=models or None, days=days, expires=until, export=not provider_only
            )
            limit = "" if made.expires is None else f" until {moment(made.expires)}"
            click.echo(f"{plugin} may have {service}{limit}.", err=True)
            if service not in configured:
                click.echo(f"Nothing is stored for {service} yet.", err=True)
        if not manager.status().access_control:
            click.echo("Access control is off: every plugin may have everything.", err=True)


@click.command
@click.argument("plugin", type=plugin_name, metavar="PLUGIN")
@click.argument("services", type=service_name, metavar="[SERVICES]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Take everything from the plugin.")
@pass_session
def revoke(session: Session, plugin: str, services: tuple[str, ...], everything: bool) -> None:
    """Take SERVICES from PLUGIN, from its next call on."""
    if everything == bool(services):
        raise click.UsageError("Name the services to take, or give --all.")
    with session.opened() as manager:
        taken = [service for service in services or (None,) if manager.revoke(plugin, service)]
    if not taken:
        raise click.ClickException(f"{plugin} had no such grant. Nothing was changed.")
    for service in taken:
        click.echo(f"{plugin} may no longer have {service or 'anything'}.", err=True)


@click.command
@click.argument("plugin", type=plugin_name, metavar="[PLUGIN]", required=False)
@click.option(
    "--access-control",
    type=click.Choice(["on", "off"]),
    default=None,
    help="Check permissions, or let every plugin have everything. Kept in the store.",
)
@json_option
@pass_session
def permissions(session: Session, plugin: str | None, access_control: str | None, as_json: bool) -> None:
    """List who may have what, or only what PLUGIN may have."""
    with session.opened() as manager:
        if access_control is not None:
            manager.enable_access_control(access_control == "on")
        found = manager.get_plugin_permissions(plugin)
        enabled = manager.status().access_control
    if as_json:
        print_json({"access_control": enabled, "permissions": found})
        return
    if not enabled:
        click.echo("Access control is off: every plugin may have everything.", err=True)
    rows = [
        (
            name,
            each.service,
            ", ".join(each.models) if each.models is not None else "all",
            "the plugin" if each.export else "its provider only",
            "no end" if each.expires is None else moment(each.expires),
        )
        for name, grants in found.items()
        for each in grants
    ]
    if rows:
        table(("PLUGIN", "SERVICE", "MODELS", "HANDED TO", "UNTIL"), rows)
    else:
        click.echo(f"Nothing is granted{'' if plugin is None else f' to {printable(plugin)}'}.", err=True)
