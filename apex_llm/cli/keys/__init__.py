"""``apex-llm keys``: the key store from the command line.

No secret is ever an argument, because arguments can be seen by others: it is asked for without echo,
or read from standard input, a file or the environment.
"""

from __future__ import annotations

__all__ = ["keys"]

from pathlib import Path

import click

from apex_llm.cli.keys.access import grant, permissions, revoke
from apex_llm.cli.keys.child import exec_
from apex_llm.cli.keys.creation import init
from apex_llm.cli.keys.credentials import list_, remove, set_, show
from apex_llm.cli.keys.inspection import audit, status, verify
from apex_llm.cli.keys.moving import export, import_, migrate
from apex_llm.cli.keys.rotation import rotate
from apex_llm.cli.keys.session import Session


@click.group
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory of the store; APEX_LLM_HOME, or ~/.local/share/apex-llm, when left out.",
)
@click.option(
    "--passphrase-from",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    default=None,
    metavar="FILE",
    help="Read the store's passphrase from this file; - is standard input.",
)
@click.option(
    "--lock-timeout",
    type=click.FloatRange(0.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for other processes that are writing.",
)
@click.pass_context
def keys(context: click.Context, home: Path | None, passphrase_from: str | None, lock_timeout: float) -> None:
    """Keep API keys in an encrypted file, and say which plugin may have which.

    The store opens with APEX_LLM_MASTER_KEY, _FILE or _COMMAND, with a passphrase, or with the system's
    keyring. "status" shows which of them there are.
    """
    context.obj = Session(home=home, passphrase_from=passphrase_from, lock_timeout=lock_timeout)


for _command in (
    init, set_, list_, show, remove, grant, revoke, permissions, rotate, verify, audit, status, export, import_,
    migrate, exec_,
):  # fmt: skip
    keys.add_command(_command)
