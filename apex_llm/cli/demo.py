"""``apex-llm demo``: one streamed answer from each cloud, awaited and blocking, with what it used."""

from __future__ import annotations

__all__ = ["demo"]

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec

import click

from apex_llm import AzureOpenAIProvider, BedrockProvider, ChatResponse, ConfigurationError
from apex_llm import sync as blocking
from apex_llm.cli.exit_codes import ExitCode

_PROMPT = "In two sentences: why is the sky blue?"
_STORY = (
    "Sunlight is made of all colours, and air scatters the blue ones far more than the red ones. "
    "So blue light reaches us from every part of the sky."
)


@click.command
@click.option("--live", is_flag=True, help="Talk to the clouds, with the credentials of this environment.")
@click.option("--prompt", default=_PROMPT, show_default=True, help="What to ask.")
@click.option("--model", default="claude", show_default=True, help="Model on Bedrock.")
@click.option("--deployment", default=None, help="Deployment on Azure; with --live it is needed for Azure to be asked.")
def demo(live: bool, prompt: str, model: str, deployment: str | None) -> int:
    """Stream an answer from Bedrock and from Azure OpenAI, twice each: awaited, and from blocking code.

    Without --live everything happens on this machine, against the emulator: no account, no keys.
    """
    if live:
        return _run(prompt, model=model, deployment=deployment or os.environ.get("AZURE_OPENAI_DEPLOYMENT"), live=True)
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise click.ClickException("The emulator is not installed. Try: pip install 'apex-llm[emulator]'")
    with _emulated():
        return _run(prompt, model=model, deployment=deployment or "chat", live=False)


@contextmanager
def _emulated() -> Generator[None]:
    from apex_llm.emulator import Answer, Emulator

    with Emulator() as emulator:
        emulator.script(*[Answer.text(_STORY, delay=0.02)] * 4)
        for name in emulator.conflicting_variables:
            os.environ.pop(name, None)
        os.environ.update(emulator.environment)
        click.echo(f"Both clouds are emulated at {emulator.url}; signatures and keys are checked.\n")
        yield


def _run(prompt: str, *, model: str, deployment: str | None, live: bool) -> int:
    parts: list[tuple[str, Callable[[], object]]] = [
        (f"Bedrock, {model}, async", lambda: asyncio.run(_bedrock(prompt, model))),
        (f"Bedrock, {model}, sync", lambda: _bedrock_blocking(prompt, model)),
    ]
    if deployment is not None:
        parts += [
            (f"Azure OpenAI, {deployment}, async", lambda: asyncio.run(_azure(prompt, deployment))),
            (f"Azure OpenAI, {deployment}, sync", lambda: _azure_blocking(prompt, deployment)),
        ]
    answered = 0
    for title, part in parts:
        click.secho(title, bold=True)
        try:
            part()
        except ConfigurationError as error:
            if not live:
                raise
            click.echo(f"skipped: {error}\n")
        else:
            answered += 1
    if deployment is None:
        click.echo("Azure OpenAI was not asked: name a deployment with --deployment or AZURE_OPENAI_DEPLOYMENT.")
    return ExitCode.DONE if answered else ExitCode.ERROR


async def _bedrock(prompt: str, model: str) -> None:
    async with BedrockProvider() as bedrock, bedrock.generate_text_stream(prompt, model=model) as stream:
        async for text in stream:
            click.echo(text, nl=False)
    _account(stream.response)


def _bedrock_blocking(prompt: str, model: str) -> None:
    with blocking.BedrockProvider() as bedrock, bedrock.generate_text_stream(prompt, model=model) as stream:
        for text in stream:
            click.echo(text, nl=False)
    _account(stream.response)


async def _azure(prompt: str, deployment: str) -> None:
    async with AzureOpenAIProvider() as azure, azure.generate_text_stream(prompt, deployment_id=deployment) as stream:
        async for text in stream:
            click.echo(text, nl=False)
    _account(stream.response)


def _azure_blocking(prompt: str, deployment: str) -> None:
    with (
        blocking.AzureOpenAIProvider() as azure,
        azure.generate_text_stream(prompt, deployment_id=deployment) as stream,
    ):
        for text in stream:
            click.echo(text, nl=False)
    _account(stream.response)


def _account(response: ChatResponse) -> None:
    usage = response.usage
    counted = f"{usage.input_tokens} tokens read, {usage.output_tokens} written" if usage else "usage not reported"
    click.secho(f"\n[{response.model}: {counted}, finished by {response.finish_reason}]\n", dim=True)
