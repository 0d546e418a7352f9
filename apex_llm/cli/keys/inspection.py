"""``keys status``, ``verify`` and ``audit``."""

from __future__ import annotations

__all__ = ["audit", "status", "verify"]

import click

from apex_llm.cli.exit_codes import ExitCode
from apex_llm.cli.keys.output import json_option, moment, print_json, printable, table
from apex_llm.cli.keys.session import Session, pass_session
from apex_llm.errors import KeyStoreError, NoKeyStoreError
from apex_llm.keys import StoreStatus


@click.command
@click.option("--no-open", is_flag=True, help="Do not try to open it; ask for nothing, run no command.")
@json_option
@pass_session
def status(session: Session, no_open: bool, as_json: bool) -> int:
    """Show where the store is, what could open it, which one did, and what stands between plugins and secrets."""
    refused: KeyStoreError | None = None
    with session.manager() as manager:
        found = manager.status()
        if found.exists and not no_open:
            try:
                with session.opened() as manager:
                    found = manager.status()
            except KeyStoreError as error:
                refused = error
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    if refused is not None:
        raise refused
    if not found.exists and not found.problems:
        click.echo("There is no store yet. Make one with: apex-llm keys init", err=True)
    return ExitCode.DONE if found.exists and not found.problems else ExitCode.ERROR


def _print_status(found: StoreStatus) -> None:
    ways = [
        f"{'*' if way.name == found.opened_by else '+' if way.available else '-'} {way.name}: {way.detail}"
        for way in found.unlockers
    ]
    rows: list[tuple[str, str]] = [
        ("store", f"{found.path}{'' if found.exists else ' (not there)'}"),
        ("opened by", found.opened_by or "not opened"),
        ("unlockers", ways[0] if ways else "none"),
        *(("", way) for way in ways[1:]),
    ]
    if found.opened:
        rows += [
            ("holds", f"{found.services} services, permissions of {found.plugins} plugins"),
            ("access", "granted services only" if found.access_control else "off: every plugin may have everything"),
            ("recovery", "there is a recovery key" if found.recovery_key else "no recovery key"),
            ("generation", str(found.generation)),
        ]
        if found.rotation_pending:
            rows.append(("rotation", "the former master key still opens it, until it is changed with the new one"))
    rows += [
        ("backups", ", ".join(found.backups) or "none"),
        ("isolation", f"{found.isolation}: {_ISOLATION[found.isolation]}"),
        *(("problem", problem) for problem in found.problems),
    ]
    for name, text in rows:
        click.echo(f"{name:<12}{printable(text)}")


_ISOLATION = {
    "in-process": "permissions and an audit log, but no wall; plugins can read the memory they run in",
    "broker": "a process of its own holds the secrets and makes the calls",
}


@click.command
@json_option
@pass_session
def verify(session: Session, as_json: bool) -> int:
    """Check the store, its files, its backups and the audit log. Ends with 1 if something is wrong."""
    with session.opened(damaged_too=True) as manager:
        found, exists = manager.verify(), manager.status().exists
    if as_json:
        print_json(found)
    else:
        for problem in found.problems:
            click.echo(printable(problem))
        if any(problem.startswith("Audit log: ") for problem in found.problems):
            click.echo(
                "Look at the log. Then apex-llm keys audit --archive --damaged puts it away and begins a new one.",
                err=True,
            )
        if not exists:
            click.echo("Make one with: apex-llm keys init", err=True)
        if found.ok:
            backups = ", ".join(f"{name} (generation {number})" for name, number in found.backups.items())
            click.echo(
                f"All is well: generation {found.generation}, {found.audit_lines} lines in the audit log, "
                f"backups: {backups or 'none'}."
            )
    return ExitCode.DONE if found.ok else ExitCode.ERROR


@click.command
@click.option("--plugin", default=None, help="Only what this plugin did.")
@click.option("--service", default=None, help="Only what concerned this service.")
@click.option("--denied", is_flag=True, help="Only what was refused.")
@click.option("--last", type=click.IntRange(1), default=None, metavar="N", help="Only the last N of these.")
@click.option("--archive", is_flag=True, help="Put the log away under a name of its own, and go on in a new one.")
@click.option("--damaged", is_flag=True, help="With --archive: put it away although it is not as it was left.")
@json_option
@pass_session
def audit(
    session: Session,
    plugin: str | None,
    service: str | None,
    denied: bool,
    last: int | None,
    archive: bool,
    damaged: bool,
    as_json: bool,
) -> None:
    """Print the audit log. It needs no key, so it may have been written by anybody: "verify" says whether it was."""
    if damaged and not archive:
        raise click.UsageError("--damaged goes with --archive.")
    if archive:
        with session.opened() as manager:
            click.echo(manager.archive_audit_log(damaged=damaged))
        return
    manager = session.manager()
    entries = manager.audit_entries()
    if not entries and not manager.status().exists:
        raise NoKeyStoreError(f"There is no key store in {manager.path}.", hint="Make one with: apex-llm keys init")
    found = [
        entry
        for entry in entries
        if plugin in (None, entry.plugin)
        if service is None or service in (entry.service or "").split(" ") or service == entry.service
        if not denied or entry.decision != "allowed"
    ]
    if last is not None:
        found = found[-last:]
    if as_json:
        print_json(found)
        return
    table(
        ("NUMBER", "TIME", "PLUGIN", "OPERATION", "SERVICE, MODEL", "DECISION", "FINGERPRINT"),
        [
            (
                str(entry.seq),
                moment(entry.time),
                entry.plugin or "-",
                entry.operation,
                " ".join(filter(None, (entry.service, entry.model))) or "-",
                entry.decision,
                entry.fingerprint or "-",
            )
            for entry in found
        ],
    )
