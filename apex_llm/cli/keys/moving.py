"""``keys export``, ``import`` and ``migrate``: credentials on their way from one store to another, always encrypted."""

from __future__ import annotations

__all__ = ["export", "import_", "migrate"]

from pathlib import Path

import click

from apex_llm.cli.exit_codes import ExitCode
from apex_llm.cli.keys.output import json_option, print_json
from apex_llm.cli.keys.session import Session, pass_session, service_name
from apex_llm.types.secrets import Secret

_LEGACY_KEY = "APEX_AGENT_MASTER_KEY"
_FILE_PASSPHRASE = click.option(
    "--file-passphrase-from",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default=None,
    metavar="FILE",
    help="The passphrase of the exported file is in this file; - is standard input.",
)


@click.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--recipient", "recipients", multiple=True, metavar="age1...", help="Encrypt to this age key. May be repeated."
)
@_FILE_PASSPHRASE
@click.option(
    "--service", "services", type=service_name, metavar="SERVICE", multiple=True, help="Only this one. May be repeated."
)
@pass_session
def export(
    session: Session,
    file: Path,
    recipients: tuple[str, ...],
    file_passphrase_from: str | None,
    services: tuple[str, ...],
) -> None:
    """Write credentials and permissions to FILE, an age file for a passphrase, which is asked for, or for age keys."""
    if recipients and file_passphrase_from is not None:
        raise click.UsageError("Give --recipient or --file-passphrase-from, not both.")
    with session.opened() as manager:
        passphrase: Secret | None = None
        if file_passphrase_from is not None:
            passphrase = Secret(session.read_file(file_passphrase_from))
        elif not recipients:
            passphrase = session.ask_new_passphrase("the file", instead="--recipient or --file-passphrase-from FILE")
        written = manager.export_store(
            file, passphrase=passphrase, recipients=recipients, services=list(services) or None
        )
    click.echo(f"Wrote {len(written)} services to {file}: {', '.join(written) or 'none'}.", err=True)


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--identity-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default=None,
    metavar="FILE",
    help="The age key that FILE is encrypted to, as age-keygen writes it; - is standard input.",
)
@_FILE_PASSPHRASE
@click.option("--overwrite", is_flag=True, help="Replace credentials that are here with another value.")
@click.option("--permissions", is_flag=True, help="Take over the permissions of its plugins too.")
@json_option
@pass_session
def import_(
    session: Session,
    file: Path,
    identity_file: str | None,
    file_passphrase_from: str | None,
    overwrite: bool,
    permissions: bool,
    as_json: bool,
) -> int:
    """Read what "export" wrote. Ends with 1 if something was skipped, because another value is here."""
    if identity_file is not None and file_passphrase_from is not None:
        raise click.UsageError("Give --identity-file or --file-passphrase-from, not both.")
    with session.opened() as manager:
        passphrase: Secret | None = None
        identity: Secret | None = None
        if identity_file is not None:
            identity = _identity(session.read_file(identity_file), identity_file)
        elif file_passphrase_from is not None:
            passphrase = Secret(session.read_file(file_passphrase_from))
        else:
            passphrase = session.ask_secret(
                f"Passphrase of {file}", instead="--identity-file or --file-passphrase-from FILE"
            )
        found = manager.import_store(
            file, passphrase=passphrase, identity=identity, overwrite=overwrite, permissions=permissions
        )
    if as_json:
        print_json(found)
    else:
        for what, names in (
            ("Imported", found.imported),
            ("Here already", found.unchanged),
            ("Skipped, because another value is here (--overwrite replaces it)", found.skipped),
        ):
            if names:
                click.echo(f"{what}: {', '.join(names)}.", err=True)
    return ExitCode.ERROR if found.skipped else ExitCode.DONE


def _identity(text: str, name: str) -> Secret:
    """The key in a file of ``age-keygen``, which has comments above it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise click.UsageError(f"{name} does not hold one age key (AGE-SECRET-KEY-1...).")
    return Secret(lines[0])


@click.command
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--overwrite", is_flag=True, help="Replace credentials that are here with another value.")
@json_option
@pass_session
def migrate(session: Session, file: Path | None, overwrite: bool, as_json: bool) -> None:
    """Move everything out of ApexAgent's older key file, and rename that file.

    FILE is ~/.apex_agent_api_keys.enc when left out. Its key is APEX_AGENT_MASTER_KEY, or is asked for.
    """
    with session.opened() as manager:
        key = session.environ.get(_LEGACY_KEY)
        secret = Secret(key) if key else session.ask_secret("Key of the older file", instead=_LEGACY_KEY)
        found = manager.migrate(file, master_key=secret, overwrite=overwrite)
    if as_json:
        print_json(found)
        return
    for what, names in (("API keys", found.api_keys), ("OAuth tokens", found.oauth_tokens)):
        click.echo(f"{what}: {', '.join(names) or 'none'}.", err=True)
    click.echo(f"The older file is now {found.original}; remove it when all works.", err=True)
