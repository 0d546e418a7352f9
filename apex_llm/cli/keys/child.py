"""``keys exec``: one program with one grant in its environment."""

from __future__ import annotations

__all__ = ["environment_of", "exec_"]

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

import click

from apex_llm.cli.keys.session import MASTER_KEY_VARIABLES, Session, pass_session, plugin_name, service_name
from apex_llm.errors import KeyStoreError

# What opens stores is nothing that a child should have.
_WITHHELD = (*MASTER_KEY_VARIABLES, "APEX_AGENT_MASTER_KEY")

_BEDROCK = {
    "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
    "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "aws_session_token": ("AWS_SESSION_TOKEN",),
    "bearer_token": ("AWS_BEARER_TOKEN_BEDROCK",),
    "aws_bearer_token_bedrock": ("AWS_BEARER_TOKEN_BEDROCK",),
    "api_key": ("AWS_BEARER_TOKEN_BEDROCK",),
    **dict.fromkeys(("aws_region", "region", "region_name"), ("AWS_REGION", "AWS_DEFAULT_REGION")),
    "endpoint_url": ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME",),
}
_AZURE = {
    **dict.fromkeys(("api_key", "azure_api_key", "azure_openai_api_key", "key"), ("AZURE_OPENAI_API_KEY",)),
    **dict.fromkeys(("azure_ad_token", "ad_token", "bearer_token"), ("AZURE_OPENAI_AD_TOKEN",)),
    **dict.fromkeys(("api_base", "endpoint", "azure_endpoint", "base_url"), ("AZURE_OPENAI_ENDPOINT",)),
    "api_version": ("OPENAI_API_VERSION",),
    **dict.fromkeys(
        ("default_deployment", "deployment", "deployment_id", "deployment_name"), ("AZURE_OPENAI_DEPLOYMENT",)
    ),
}
_KNOWN = {"aws_bedrock": _BEDROCK, "azure_openai": _AZURE}
# A session token or a profile of the parent beside a key of the store would be a mixture of two identities.
_REPLACED = {
    "aws_bedrock": (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
        "AWS_CREDENTIAL_EXPIRATION", "AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_DEFAULT_PROFILE",
    ),
    "azure_openai": ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
}  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def environment_of(
    service: str, value: str | Mapping[str, Any], *, kind: str = "api_key", names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables that stand for a credential.

    Args:
        service: Whose it is; the two clouds have names of their own.
        value: As it was stored.
        kind: ``api_key`` or ``oauth_token``.
        names: Variables by member, instead of the usual ones; under ``""`` that of a plain text.

    Raises:
        ClickException: A member is missing, or cannot stand in an environment.
    """
    prefix = re.sub(r"\W", "_", service, flags=re.ASCII).upper()
    if prefix[:1].isdigit():
        prefix = f"_{prefix}"
    if isinstance(value, str):
        usual = {"aws_bedrock": "AWS_BEARER_TOKEN_BEDROCK", "azure_openai": "AZURE_OPENAI_API_KEY"}
        if kind != "api_key":
            usual = {"azure_openai": "AZURE_OPENAI_AD_TOKEN"}
        whole = usual.get(service, f"{prefix}_{'API_KEY' if kind == 'api_key' else 'ACCESS_TOKEN'}")
        if names and set(names) != {""}:
            raise click.ClickException(f"The {kind} of {service} is one text and has no members. Give --as VARIABLE.")
        return {(names or {}).get("", whole): _plain(value, "value")}
    if names:
        missing = sorted(name or "(one text)" for name in names if name not in value)
        if missing:
            raise click.ClickException(
                f"The {kind} of {service} has no {', '.join(missing)}, but {', '.join(sorted(value))}. "
                "Give --as VARIABLE=MEMBER."
            )
        return {variable: _plain(value[member], member) for member, variable in names.items()}
    known = _KNOWN.get(service) if kind == "api_key" else None
    found: dict[str, str] = {}
    for member, part in value.items():
        if part is None:
            continue
        if known is None:
            variables: Sequence[str] = (f"{prefix}_{re.sub(r'[^A-Za-z0-9]', '_', member).upper()}",)
        else:
            variables = known.get(member, ())
        for variable in variables:
            found[variable] = _plain(part, member)
    if not found:
        raise click.ClickException(f"The {kind} of {service} has no member that a variable is known for. Give --as.")
    return found


def _plain(value: Any, what: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if "\0" in text:
        raise click.ClickException(f"The {what} holds a NUL character, which no environment can hold.")
    return text


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option(
    "--kind",
    type=click.Choice(["api_key", "oauth_token"]),
    default="api_key",
    show_default=True,
    help="Which credential of the service.",
)
@click.option("--model", default=None, help="For which model it will be used, where the grant names models.")
@click.option(
    "--as",
    "names",
    multiple=True,
    metavar="VARIABLE[=MEMBER]",
    help="Put the credential, or this member of it, into this variable, and nothing else. May be repeated.",
)
@click.option("--clean", is_flag=True, help="Pass nothing else but PATH, HOME, LANG, LC_ALL, TZ, TMPDIR and TERM.")
@click.option(
    "--audit",
    type=click.Choice(["required", "on"]),
    default="required",
    show_default=True,
    help='"on" goes on where the audit log cannot be written, with a warning.',
)
@click.argument("plugin", type=plugin_name, metavar="PLUGIN")
@click.argument("service", type=service_name, metavar="SERVICE")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def exec_(
    session: Session,
    kind: Literal["api_key", "oauth_token"],
    model: str | None,
    names: tuple[str, ...],
    clean: bool,
    audit: Literal["required", "on"],
    plugin: str,
    service: str,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND for PLUGIN, with its grant for SERVICE in the environment.

    The permission is checked and the use is audited as when the plugin itself asks. The variables are those
    that the cloud's own tools read; for other services SERVICE_API_KEY, or SERVICE_MEMBER for each member.
    Variables that open key stores are not passed on.

    \b
    apex-llm keys exec reports aws_bedrock -- python report.py
    apex-llm keys exec --as GH_TOKEN crawler github -- gh api user
    """  # noqa: D301 - click looks for the backspace itself
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("There is no command to run.")
    program = shutil.which(words[0], path=session.environ.get("PATH"))
    if program is None:
        raise click.ClickException(f"{words[0]} is no program that can be run. No credential was taken out.")
    chosen = _names(names)
    with session.opened(audit=audit) as manager:
        retrieve = manager.get_api_key_secure if kind == "api_key" else manager.get_oauth_token_secure
        try:
            value = retrieve(plugin, service, model=model)
        except KeyStoreError as error:
            if audit == "required" and error.code is not None:  # the disk's
                error.hint = f"{error.hint or ''} Or go on without a line in the log: --audit on.".strip()
            raise
    if value is None:
        raise click.ClickException(
            f"{plugin} may have the {kind} of {service}, but there is none. "
            f"Store it with: apex-llm keys set {service}{'' if kind == 'api_key' else ' --kind oauth_token'}"
        )
    environment = _inherited(session.environ, clean=clean, service=service)
    environment |= environment_of(service, value, kind=kind, names=chosen)
    return _run(program, words, environment)


def _names(given: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for each in given:
        variable, _, member = each.partition("=")
        if not _VARIABLE.match(variable) or member in names:
            raise click.UsageError("--as takes VARIABLE, or VARIABLE=MEMBER for each member.")
        names[member] = variable
    return names


def _inherited(environ: Mapping[str, str], *, clean: bool, service: str) -> dict[str, str]:
    if clean:
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM", "SYSTEMROOT")
        return {name: environ[name] for name in kept if name in environ}
    dropped = {*_WITHHELD, *_REPLACED.get(service, ())}
    return {name: value for name, value in environ.items() if name not in dropped}


def _run(program: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    if sys.platform == "win32":
        return subprocess.run([program, *words[1:]], env=dict(environment), check=False).returncode  # noqa: S603
    return _become(program, words, environment)


def _become(program: str, words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the program's own, and no key stays in memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, list(words), dict(environment))  # noqa: S606 - the user's own command, without a shell
    except OSError as error:
        raise click.ClickException(f"{words[0]} could not be started: {os.strerror(error.errno or 0)}.") from error
