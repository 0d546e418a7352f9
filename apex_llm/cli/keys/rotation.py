"""``keys rotate``: a credential, the master key, the recovery key, and when each is due."""

from __future__ import annotations

__all__ = ["rotate"]

import contextlib
from pathlib import Path
from typing import Literal

import click

from apex_llm.cli.exit_codes import ExitCode
from apex_llm.cli.keys.creation import print_recovery_key
from apex_llm.cli.keys.credentials import KIND, stored_value
from apex_llm.cli.keys.output import json_option, moment, print_json, refuse_pipe, table
from apex_llm.cli.keys.session import Session, new_secret_file, pass_session, service_name
from apex_llm.cli.keys.values import Source, read_value, value_options
from apex_llm.errors import ConfigurationError
from apex_llm.keys import ApiKeyManager
from apex_llm.types.secrets import Secret

_KEPT_BY_OPERATOR = "master key"


@click.command
@click.argument("service", type=service_name, metavar="[SERVICE]", required=False)
@KIND
@value_options
@click.option(
    "--overlap-days",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="For how long the former credential is kept.",
)
@click.option("--master-key", is_flag=True, help="Make a new key for the store itself.")
@click.option("--new-passphrase", is_flag=True, help="With --master-key: open it with a new passphrase from now on.")
@click.option(
    "--new-passphrase-from",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default=None,
    metavar="FILE",
    help="With --master-key: the new passphrase is in this file; - is standard input.",
)
@click.option(
    "--new-master-key-file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="With --master-key: write the new master key to this new file.",
)
@click.option("--to-keyring", is_flag=True, help="With --master-key: keep it in the system's keyring from now on.")
@click.option("--encryption-keys", is_flag=True, help="Encrypt the store anew.")
@click.option("--recovery-key", is_flag=True, help="Make a new recovery key; the former one opens nothing any more.")
@click.option(
    "--recovery-file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="With --recovery-key: write it to this new file instead of showing it.",
)
@click.option("--force-pipe", is_flag=True, help="With --recovery-key: print it although there is no terminal.")
@click.option(
    "--every", "interval", type=click.FloatRange(0, 36_500, min_open=True, max_open=True), metavar="DAYS",
    default=None, help="Only say after how many days --master-key, --encryption-keys or credentials are due.",
)  # fmt: skip
@json_option
@pass_session
def rotate(
    session: Session,
    service: str | None,
    kind: Literal["api_key", "oauth_token"],
    source: Source,
    overlap_days: float,
    master_key: bool,
    new_passphrase: bool,
    new_passphrase_from: str | None,
    new_master_key_file: Path | None,
    to_keyring: bool,
    encryption_keys: bool,
    recovery_key: bool,
    recovery_file: Path | None,
    force_pipe: bool,
    interval: float | None,
    as_json: bool,
) -> int:
    """Replace the credential of SERVICE, keeping the former one for an overlap; or a key of the store.

    With neither, show when each kind of key was last rotated, and what is due.
    """
    chosen = [service is not None, master_key, encryption_keys, recovery_key]
    if sum(chosen) > 1:
        raise click.UsageError("Rotate one thing at a time.")
    new_keys = [new_passphrase, new_passphrase_from is not None, new_master_key_file is not None, to_keyring]
    if sum(new_keys) > 1 or (any(new_keys) and not master_key):
        raise click.UsageError(
            "One of --new-passphrase, --new-passphrase-from, --new-master-key-file and --to-keyring goes with "
            "--master-key."
        )
    if (recovery_file is not None or force_pipe) and not recovery_key:
        raise click.UsageError("--recovery-file and --force-pipe go with --recovery-key.")
    if interval is not None:
        if service is not None or recovery_key:
            raise click.UsageError("--every is for --master-key, --encryption-keys, or all credentials of a --kind.")
        return _interval(session, interval, master_key=master_key, encryption_keys=encryption_keys, kind=kind)
    if service is not None:
        return _credential(session, service, kind, source, overlap_days)
    if master_key:
        return _master_key(session, new_passphrase, new_passphrase_from, new_master_key_file, to_keyring=to_keyring)
    if recovery_key:
        return _recovery_key(session, recovery_file, force_pipe=force_pipe)
    if encryption_keys:
        with session.opened() as manager:
            manager.rotate_encryption_keys()
        click.echo("Encrypted the store anew.", err=True)
        return ExitCode.DONE
    return _status(session, json=as_json)


def _credential(
    session: Session, service: str, kind: Literal["api_key", "oauth_token"], source: Source, overlap_days: float
) -> int:
    with session.opened() as manager:
        former = stored_value(manager, service, kind)
        if former is None:
            raise click.ClickException(
                f"There is no {kind} of {service} to rotate. A first one is stored with: apex-llm keys set {service}"
            )
        value = read_value(session, service, source, stored=former)
        manager.rotate_credential(service, value, kind=kind, overlap_days=overlap_days)
    click.echo(f"Rotated the {kind} of {service}; the former one is kept for {overlap_days:g} day(s).", err=True)
    return ExitCode.DONE


def _master_key(
    session: Session, ask: bool, passphrase_from: str | None, file: Path | None, *, to_keyring: bool
) -> int:
    with session.opened() as manager:
        opened_by = manager.status().opened_by
        if file is not None:
            return _to_file(manager, file, graceful=opened_by == _KEPT_BY_OPERATOR)
        passphrase: Secret | None = None
        if passphrase_from is not None:
            passphrase = Secret(session.read_file(passphrase_from))
        elif ask:
            passphrase = session.ask_new_passphrase("the key store", instead="--new-passphrase-from FILE")
        elif opened_by == _KEPT_BY_OPERATOR and not to_keyring:
            raise click.UsageError(
                "The store was opened with a key that only you can put in place. Give --new-master-key-file FILE, "
                "--new-passphrase to open it with a passphrase from now on, or --to-keyring."
            )
        manager.rotate_master_key(passphrase=passphrase, keyring=to_keyring)
        opened_by = manager.status().opened_by
    click.echo(f"Rotated the master key. The store opens with: {opened_by}.", err=True)
    if (passphrase is not None or to_keyring) and session.has_master_key:
        click.echo("APEX_LLM_MASTER_KEY* is still set, and opens this store no more: unset it.", err=True)
    return ExitCode.DONE


def _to_file(manager: ApiKeyManager, file: Path, *, graceful: bool) -> int:
    """A new master key, in a file that is there before the store is encrypted to it."""
    with new_secret_file(file) as write:
        made: Secret | None = None
        if graceful:
            # The former key goes on opening the store meanwhile, so a failure from here on locks nobody out.
            with contextlib.suppress(ConfigurationError):  # opened with the recovery key, which stays what it is
                made = manager.rotate_master_key()
        if made is not None:
            write(made)
        else:
            graceful = False
            made = manager.generate_master_key()
            write(made)
            manager.rotate_master_key(master_key=made)
    click.echo(f"The new master key is in {file}.", err=True)
    if graceful:
        click.echo(
            "Put it where APEX_LLM_MASTER_KEY, _FILE or _COMMAND finds it. The former one keeps opening the store\n"
            "until the store is first changed by a process that was given the new one.",
            err=True,
        )
    return ExitCode.DONE


def _recovery_key(session: Session, file: Path | None, *, force_pipe: bool) -> int:
    if file is None:
        refuse_pipe("The recovery key", forced=force_pipe, instead="Give --recovery-file FILE.")
        with session.opened() as manager:
            key = manager.rotate_recovery_key()
        print_recovery_key(key)
        return ExitCode.DONE
    with session.opened() as manager, new_secret_file(file) as write:
        write(manager.rotate_recovery_key())
    click.echo(f"The new recovery key is in {file}. Keep that file away from this machine.", err=True)
    return ExitCode.DONE


def _interval(
    session: Session, days: float, *, master_key: bool, encryption_keys: bool, kind: Literal["api_key", "oauth_token"]
) -> int:
    which = "master_key" if master_key else "encryption_keys" if encryption_keys else f"{kind}s"
    with session.opened() as manager:
        manager.set_key_rotation_interval(which, days)
    click.echo(f"{which} are due after {days:g} days.", err=True)
    return ExitCode.DONE


def _status(session: Session, *, json: bool) -> int:
    with session.opened() as manager:
        found = manager.check_key_rotation_status()
    if json:
        print_json(found)
        return ExitCode.DONE
    table(
        ("WHAT", "OLDEST", "EVERY", "DUE", "NOW DUE"),
        [
            (
                each.which,
                moment(each.last_rotated),
                "-" if each.interval_days is None else f"{each.interval_days:g} days",
                moment(each.due_at),
                (", ".join(each.services) or "yes") if each.is_due else "no",
            )
            for each in found.values()
        ],
    )
    return ExitCode.DONE
