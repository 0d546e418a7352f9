"""Calls without ``await``: what comes back, from which threads and loops, and what of the async provider is kept."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import apex_llm
from apex_llm.emulator import Answer, Emulator
from apex_llm.errors import ConfigurationError, ModelNotFoundError, RateLimitError
from apex_llm.sync import (
    AzureOpenAIProvider,
    BaseLlmProvider,
    BedrockProvider,
    Message,
    RetryPolicy,
    SyncLlmProvider,
    get_provider,
    provider_for,
)

REQUEST = contextvars.ContextVar("REQUEST", default="none")


class Echo(apex_llm.BedrockProvider):
    """An async provider that tells where it runs."""

    name = "echo"

    async def generate_text(self, prompt: str, *_: Any, **__: Any) -> str:
        return f"{prompt} {REQUEST.get()} {threading.current_thread().name}"


def test_a_call_gives_what_awaiting_the_async_one_gives(emulator: Emulator) -> None:
    emulator.script(*["The same answer."] * 4)

    with BedrockProvider() as bedrock, AzureOpenAIProvider() as azure:
        assert bedrock.generate_text("Hi", model="claude") == "The same answer."
        assert azure.generate_text(prompt="Hi", deployment_id="chat") == "The same answer."
        response = bedrock.chat([Message.user("Hi")], model="nova")
        assert (response.text, type(response)) == ("The same answer.", apex_llm.ChatResponse)
        assert azure.chat("Hi", model="chat").text == "The same answer."

    assert [request.operation for request in emulator.requests].count("converse") == 2


def test_errors_are_the_typed_ones_with_the_lines_of_both_threads(emulator: Emulator) -> None:
    emulator.script(Answer.error("not_found"))

    with BedrockProvider() as bedrock, pytest.raises(ModelNotFoundError) as caught:
        bedrock.generate_text("Hi", model="claude")

    shown = {entry.path.name for entry in caught.traceback if hasattr(entry.path, "name")}
    assert {"test_blocking_calls.py", "_generated.py", "base.py"} <= shown


def test_mistakes_in_a_call_are_raised_before_anything_runs() -> None:
    bedrock = BedrockProvider()

    with pytest.raises(TypeError, match="max_token"):
        bedrock.generate_text_stream("Hi", model="claude", max_token=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigurationError):
        BedrockProvider(credentials={}, bearer_token="x")


def test_listings_and_initialising_work(emulator: Emulator) -> None:
    with BedrockProvider() as bedrock, AzureOpenAIProvider() as azure:
        bedrock.initialize()
        azure.initialize()

        assert {"foundation_model", "inference_profile"} <= {
            str(model.kind) for model in bedrock.get_available_models()
        }
        assert "chat" in {model.id for model in azure.get_available_models()}
        assert azure._get_deployment_model("chat") == "gpt-4o"


def test_a_closed_provider_can_be_used_again(emulator: Emulator) -> None:
    provider = BedrockProvider()
    provider.generate_text("Hi", model="claude")
    provider.close()
    provider.close()

    assert provider.generate_text("Hi", model="claude")
    provider.close()


def test_context_variables_of_the_caller_reach_the_call(emulator: Emulator) -> None:
    echo = SyncLlmProvider(Echo())
    token = REQUEST.set("request-7")
    try:
        assert echo.generate_text("hello") == "hello request-7 apex_llm-loop"
    finally:
        REQUEST.reset(token)
    assert echo.generate_text("hello") == "hello none apex_llm-loop"


def test_it_works_inside_a_running_loop(emulator: Emulator) -> None:
    """Notebooks, Django's async views, and libraries that know nothing of the loop they are called on."""

    async def main() -> str:
        with BedrockProvider() as bedrock:
            bedrock.generate_text("Hi", model="claude")
            with bedrock.generate_text_stream("Hi", model="claude") as stream:
                return "".join(stream)

    assert asyncio.run(main()) == "You said: Hi"


def test_eight_threads_share_one_provider(emulator: Emulator) -> None:
    def ask(number: int) -> tuple[str, str]:
        whole = bedrock.generate_text(f"number {number}", model="claude")
        with bedrock.generate_text_stream(f"number {number}", model="claude") as stream:
            return whole, "".join(stream)

    with BedrockProvider() as bedrock, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(24)))

    assert answers == [(f"You said: number {number}",) * 2 for number in range(24)]
    assert [thread.name for thread in threading.enumerate()].count("apex_llm-loop") == 1


def test_a_call_from_the_loop_thread_itself_is_refused_and_not_a_deadlock(emulator: Emulator) -> None:
    inner = BedrockProvider()

    class Confused(apex_llm.BedrockProvider):
        async def generate_text(self, prompt: str, *_: Any, **__: Any) -> str:
            return inner.generate_text(prompt, model="claude")

        async def chat(self, *_: Any, **__: Any) -> Any:
            return list(inner.generate_text_stream("Hi", model="claude"))

    confused = SyncLlmProvider(Confused())

    with pytest.raises(
        RuntimeError, match=r"^generate_text\(\) was called from apex_llm's own event loop; use the async"
    ):
        confused.generate_text("Hi")
    with pytest.raises(RuntimeError, match=r"^next\(\) was called from apex_llm's own event loop"):
        confused.chat("Hi")


def test_a_blocking_token_callback_may_use_a_blocking_provider(emulator: Emulator) -> None:
    """Sync callbacks run on threads of their own, so the guard does not hit them."""
    bedrock = BedrockProvider()

    def token() -> str:
        bedrock.generate_text("Hi", model="claude")
        return emulator.bearer_token

    azure = AzureOpenAIProvider(api_base=emulator.azure_url, azure_ad_token_provider=token)

    assert azure.generate_text("Hi", "chat") == "You said: Hi"
    assert len(emulator.requests) == 2


def test_with_options_stays_blocking_and_keeps_the_subclass(emulator: Emulator) -> None:
    class Mine(BedrockProvider):
        def __init__(self, label: str) -> None:
            super().__init__(default_model="claude")
            self.label = label

        def generate_text(self, prompt: str, *args: Any, **options: Any) -> str:
            return f"[{self.label}] {super().generate_text(prompt, *args, **options)}"

    emulator.script(Answer.throttle(), "ok")
    mine = Mine("a")
    impatient = mine.with_options(retry=None)

    assert type(impatient) is Mine
    with pytest.raises(RateLimitError):
        impatient.generate_text("Hi")
    assert impatient.generate_text("Hi") == "[a] ok"
    assert impatient.limits is mine.limits
    assert mine.async_provider is not impatient.async_provider


def test_attributes_are_those_of_the_async_provider() -> None:
    bedrock = BedrockProvider(default_model="claude")
    bedrock.default_model = "nova"
    limits = apex_llm.Limits(retry_quota=7)
    bedrock.limits = limits

    assert bedrock.async_provider.default_model == bedrock.default_model == "nova"
    assert bedrock.async_provider.limits is bedrock.limits is limits
    assert (BedrockProvider.name, AzureOpenAIProvider.name, SyncLlmProvider(Echo()).name) == (
        "bedrock",
        "azure_openai",
        "echo",
    )
    assert repr(bedrock) == "BedrockProvider(default_model='nova')"


def test_the_deployment_of_azure_can_be_read_as_on_the_async_one(emulator: Emulator) -> None:
    azure = AzureOpenAIProvider(default_deployment="chat")

    assert azure.default_deployment == "chat"
    assert azure.generate_text("Hi") == "You said: Hi"


def test_every_blocking_provider_is_one() -> None:
    for provider in (BedrockProvider(), AzureOpenAIProvider(), SyncLlmProvider(Echo())):
        assert isinstance(provider, BaseLlmProvider)
        assert not isinstance(provider, apex_llm.BaseLlmProvider)
    with pytest.raises(TypeError, match="abstract"):
        BaseLlmProvider()  # pyright: ignore[reportAbstractUsage]


def test_a_provider_is_made_by_name(emulator: Emulator) -> None:
    bedrock = get_provider("bedrock:claude", retry=RetryPolicy(max_attempts=1))
    azure = get_provider("azure/chat")

    assert (type(bedrock), type(azure)) == (BedrockProvider, AzureOpenAIProvider)
    assert (bedrock.default_model, azure.default_model) == ("claude", "chat")
    assert bedrock.generate_text("Hi") == azure.generate_text("Hi") == "You said: Hi"
    with pytest.raises(ConfigurationError, match="no provider named"):
        get_provider("vertex")


def test_a_plugin_gets_a_provider_and_not_the_key(emulator: Emulator) -> None:
    class Manager:
        asked: list[tuple[str, str]] = []

        def get_api_key_secure(self, plugin: str, service: str) -> dict[str, str]:
            self.asked.append((plugin, service))
            return {
                "aws_access_key_id": emulator.access_key_id,
                "aws_secret_access_key": emulator.secret_access_key,
                "aws_region": emulator.region,
            }

    provider = provider_for(Manager(), "writer", "aws_bedrock")

    assert type(provider) is BedrockProvider
    assert provider.generate_text("Hi", "claude") == "You said: Hi"
    assert set(Manager.asked) == {("writer", "aws_bedrock")}
