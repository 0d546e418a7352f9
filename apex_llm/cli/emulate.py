"""``apex-llm emulate``: the emulator as a process, for clients in other processes and languages."""

from __future__ import annotations

__all__ = ["emulate"]

import shlex
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from apex_llm.emulator import FAULTS, PORT_FAULTS, Emulator, FaultPort


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option(
    "--port", default=8642, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--region", default="us-east-1", show_default=True, help="AWS region that signatures must name.")
@click.option(
    "--deployment",
    "deployments",
    multiple=True,
    metavar="NAME=MODEL",
    help="An Azure deployment, instead of the usual ones. May be repeated.",
)
@click.option(
    "--print-environment",
    is_flag=True,
    help="Before serving, print shell commands that point clients here.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME",
    help="Play this fault to every chat or text call; several ones in turn.",
)
@click.option("--list-faults", is_flag=True, help="Print the names that --fault takes, and what each one does.")
def emulate(
    host: str,
    port: int,
    region: str,
    deployments: tuple[str, ...],
    print_environment: bool,
    faults: tuple[str, ...],
    list_faults: bool,
) -> None:
    """Serve Bedrock and Azure OpenAI on loopback, without a cloud.

    Requests must be signed, or carry the key, that --print-environment shows; they open nothing else.
    Answers repeat what was said. Stop it with Ctrl-C.
    """
    if list_faults:
        click.echo(_described())
        return
    ports = [name for name in faults if name in PORT_FAULTS]
    if ports:
        if len(faults) > 1:
            raise click.BadParameter(f"{ports[0]!r} takes the whole port; give it alone.", param_hint="--fault")
        with _stop_on_terminate() as stop, FaultPort(ports[0], host=host, port=port) as broken:
            click.echo(f"{broken.url} fails: {PORT_FAULTS[ports[0]]} Stop with Ctrl-C.", err=True)
            _wait(stop)
        return
    emulator = Emulator(host=host, port=port, region=region, deployments=_parsed(deployments))
    for name in faults:
        emulator.fault(name, times=None)
    with _stop_on_terminate() as stop, emulator:
        if print_environment:
            click.echo(_exports(emulator))
        click.echo(f"Bedrock and Azure OpenAI are emulated at {emulator.url}. Stop with Ctrl-C.", err=True)
        _wait(stop)


def _wait(stop: threading.Event) -> None:
    # Waits in slices, because on Windows a wait without end does not notice Ctrl-C.
    while not stop.wait(1.0):
        pass


def _described() -> str:
    summaries = {**PORT_FAULTS, **{fault.name: fault.summary for fault in FAULTS.values()}}
    width = max(map(len, summaries))
    return "\n".join(f"{name:<{width}}  {summary}" for name, summary in summaries.items())


def _parsed(deployments: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [entry.partition("=") for entry in deployments]
    for entry, (name, _, model) in zip(deployments, pairs, strict=True):
        if not name or not model:
            raise click.BadParameter(f"{entry!r} is not NAME=MODEL.", param_hint="--deployment")
    return {name: model for name, _, model in pairs} or None


def _exports(emulator: Emulator) -> str:
    lines = [f"unset {' '.join(emulator.conflicting_variables)}"]
    lines.extend(f"export {name}={shlex.quote(value)}" for name, value in emulator.environment.items())
    return "\n".join(lines)


@contextmanager
def _stop_on_terminate() -> Generator[threading.Event]:
    """An event that SIGTERM sets, so that a supervisor can end the process in good order."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous: Any = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
