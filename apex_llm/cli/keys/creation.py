"""``keys init``: a new store, and the key that opens it when all else is lost."""

from __future__ import annotations

__all__ = ["init", "print_recovery_key"]

from pathlib import Path
from typing import Literal

import click

from apex_llm.cli.keys.output import refuse_pipe
from apex_llm.cli.keys.session import Session, new_secret_file, pass_session
from apex_llm.errors import KeyStoreError, NoUnlockerError
from apex_llm.keys import ApiKeyManager, Keyring, MasterKey, Passphrase, Unlocker, find_keyring
from apex_llm.types.secrets import Secret

_Way = Literal["master-key", "keyring", "passphrase"]


@click.command
@click.option(
    "--with",
    "way",
    type=click.Choice(["master-key", "keyring", "passphrase"]),
    default=None,
    help="What shall open the store; when left out, the first of these that there is.",
)
@click.option(
    "--new-master-key-file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="Make a master key in this new file, for APEX_LLM_MASTER_KEY_FILE or a secret store.",
)
@click.option(
    "--recovery-file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="Write the recovery key to this new file instead of showing it.",
)
@click.option("--no-recovery-key", is_flag=True, help="Make none: without its key the store is then lost.")
@click.option("--force-pipe", is_flag=True, help="Print the recovery key although standard output is no terminal.")
@pass_session
def init(
    session: Session,
    way: _Way | None,
    new_master_key_file: Path | None,
    recovery_file: Path | None,
    no_recovery_key: bool,
    force_pipe: bool,
) -> None:
    """Make an empty store, and show its recovery key, once.

    It opens with the master key, if the environment names one; else with the system's keyring, where one
    works; else with a passphrase, which is asked for.
    """
    if no_recovery_key and recovery_file is not None:
        raise click.UsageError("Give --recovery-file or --no-recovery-key, not both.")
    status = session.manager().status()
    if status.exists:
        raise KeyStoreError(
            f"There is a key store in {status.path} already.",
            hint="apex-llm keys status shows it; another directory is named with --home or APEX_LLM_HOME.",
        )
    if new_master_key_file is None and way is None:
        way = _usual_way(session)
    if not no_recovery_key and recovery_file is None:
        refuse_pipe("The recovery key", forced=force_pipe, instead="Give --recovery-file FILE or --no-recovery-key.")
    if new_master_key_file is not None and way not in (None, "master-key"):
        raise click.UsageError(f"--new-master-key-file does not go with --with {way}.")
    if new_master_key_file is not None:
        with new_secret_file(new_master_key_file) as write:
            key = ApiKeyManager.generate_master_key()
            write(key)
        try:
            _create(session, MasterKey(key, {}), recovery_file, recovery=not no_recovery_key)
        except BaseException:
            new_master_key_file.unlink(missing_ok=True)
            raise
        click.echo(f"Set APEX_LLM_MASTER_KEY_FILE={new_master_key_file.absolute()} to open it.", err=True)
    else:
        _create(session, _unlocker(session, way), recovery_file, recovery=not no_recovery_key)


def _usual_way(session: Session) -> _Way:
    if session.passphrase_from is not None:
        return "passphrase"
    if session.has_master_key:
        return "master-key"
    keyring = find_keyring()
    if not isinstance(keyring, str):
        return "keyring"
    if session.has_terminal():
        return "passphrase"
    raise NoUnlockerError(
        f"Nothing could keep the key of a new store: no master key is set, {keyring}, and there is no terminal "
        "to ask for a passphrase.",
        hint="On a server: apex-llm keys init --new-master-key-file FILE --recovery-file FILE",
    )


def _unlocker(session: Session, way: _Way | None) -> Unlocker:
    if way == "master-key":
        return MasterKey(None, session.environ)
    if way == "keyring":
        return Keyring()
    if session.passphrase_from is not None:
        return Passphrase(session.ask_passphrase())
    return Passphrase(session.ask_new_passphrase("the key store", instead="--passphrase-from FILE, or a master key"))


def _create(session: Session, unlocker: Unlocker, recovery_file: Path | None, *, recovery: bool) -> None:
    if recovery_file is None:
        _made(session, unlocker, recovery=recovery)
        return
    with new_secret_file(recovery_file) as write:
        key = _made(session, unlocker, recovery=True, shown=False)
        if key is not None:
            write(key)
    click.echo(f"Its recovery key is in {recovery_file}. Keep that file away from this machine.", err=True)


def _made(session: Session, unlocker: Unlocker, *, recovery: bool, shown: bool = True) -> Secret | None:
    made = ApiKeyManager.create(session.home, recovery=recovery, unlockers=[unlocker], **session.options)
    with made.manager as manager:
        click.echo(f"Made a key store in {manager.path}. It opens with: {unlocker.name}.", err=True)
    if made.recovery_key is not None and shown:
        print_recovery_key(made.recovery_key)
    return made.recovery_key


def print_recovery_key(key: Secret) -> None:
    """Print it, alone on standard output."""
    click.echo(
        "\nThe recovery key opens the store when all else is lost. It is shown now and never again, and stored\n"
        "nowhere. Keep it on paper or in a safe, not on this machine:\n",
        err=True,
    )
    click.echo(key.reveal())
    click.echo("\nTo use it: APEX_LLM_MASTER_KEY=<recovery key>", err=True)
