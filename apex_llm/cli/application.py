"""The command group, and the one place where errors become messages and exit codes.

A command is a module of its own with one click command, registered below.
"""

from __future__ import annotations

__all__ = ["application", "run"]

import contextlib
import os
import sys
from collections.abc import Sequence

import click
from rich.console import Console

from apex_llm._version import __version__
from apex_llm.cli.demo import demo
from apex_llm.cli.emulate import emulate
from apex_llm.cli.exit_codes import ExitCode, exit_code_for
from apex_llm.cli.keys import keys
from apex_llm.errors import ApexLlmError


@click.group(name="apex-llm", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apex-llm")
def application() -> None:
    """AWS Bedrock and Azure OpenAI from the command line."""


application.add_command(demo)
application.add_command(emulate)
application.add_command(keys)


def _replace_closed_streams() -> None:
    """Give the process the standard streams that it was started without (``<&-``, ``>&-``): Python has ``None`` there.

    Nothing comes from the input, writing output is an error, and messages are lost. As the lowest free numbers are
    theirs, no file of ours gets one that others take for a terminal.
    """
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: Those after the program's name; ``None`` takes the process's own.
    """
    _replace_closed_streams()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        outcome: object = application.main(
            args=None if arguments is None else list(arguments), prog_name="apex-llm", standalone_mode=False
        )
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPT
    except ApexLlmError as error:
        console.print(f"error: {error}", markup=False)
        return exit_code_for(error)
    except OSError as error:
        # Ours are translated; this is what click wrote to standard output. A pipe that was closed is click's business.
        with contextlib.suppress(OSError):
            sys.stdout.close()  # or the interpreter would try once more, and complain
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        console.print(f"error: The output could not be written: {reason}.\n  hint: See where it goes.", markup=False)
        return ExitCode.ERROR
    return outcome if isinstance(outcome, int) else ExitCode.DONE
