"""Providers that take their credentials from a real manager, over sockets: granted, denied, rotated while they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from keys_support import MASTER_KEY

from apex_llm import (
    ApiKeyManager,
    AuthenticationError,
    AzureOpenAIProvider,
    BedrockProvider,
    KeyAccessDeniedError,
    KeyStoreError,
    RetryPolicy,
    provider_for,
)
from apex_llm.credentials.manager import credentials_from_manager
from apex_llm.emulator import Answer, Emulator
from apex_llm.errors import ApexLlmError, MissingCredentialsError

CLOUDS = ("aws_bedrock", "azure_openai")
QUICK = RetryPolicy(base_delay_transient=0.0, base_delay_throttle=0.0)


@pytest.fixture
def cloud(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator, with no credentials and no address of Azure in the environment; the manager asked each time."""
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    defaults: dict[str, Any] = credentials_from_manager.__kwdefaults__
    monkeypatch.setitem(defaults, "interval", 0.0)
    return emulator


def credentials(cloud: Emulator, service: str, **changed: str) -> dict[str, str]:
    if service == "aws_bedrock":
        keys = {"aws_access_key_id": cloud.access_key_id, "aws_secret_access_key": cloud.secret_access_key}
        return {**keys, "aws_region": "us-east-1", **changed}
    return {"api_key": cloud.api_key, "api_base": cloud.azure_url, "api_version": "2024-10-21", **changed}


def make(service: str, manager: Any, **options: Any) -> BedrockProvider | AzureOpenAIProvider:
    if service == "aws_bedrock":
        return BedrockProvider(manager, default_model="claude", retry=QUICK, **options)
    return AzureOpenAIProvider(manager, default_deployment="chat", retry=QUICK, **options)


@pytest.mark.parametrize("service", CLOUDS)
async def test_a_provider_takes_credentials_region_endpoint_and_version_from_the_manager(
    cloud: Emulator, manager: ApiKeyManager, service: str
) -> None:
    manager.set_api_key(service, credentials(cloud, service))

    async with make(service, manager) as provider:
        assert await provider.generate_text("Hello")
        async with provider.generate_text_stream("Hello") as stream:
            assert await stream.collect()

    (first, *_) = cloud.requests
    if service == "azure_openai":
        assert "api-version=2024-10-21" in first.query_string
    else:
        assert "/us-east-1/bedrock/" in dict(first.raw_headers)["authorization"]


@pytest.mark.parametrize("service", CLOUDS)
@pytest.mark.parametrize("make_provider", [make, None], ids=["plugin=", "provider_for"])
async def test_a_plugin_gets_what_it_was_granted_until_it_is_revoked(
    cloud: Emulator, manager: ApiKeyManager, home: Path, service: str, make_provider: Callable[..., Any] | None
) -> None:
    manager.set_api_key(service, credentials(cloud, service))

    def provider(plugin: Any) -> Any:
        if make_provider is not None:
            return make_provider(service, manager, plugin=plugin)
        kind = {"default_model": "claude"} if service == "aws_bedrock" else {"default_deployment": "chat"}
        return provider_for(manager, plugin, service, retry=QUICK, **kind)

    with pytest.raises(KeyAccessDeniedError, match="'plugin' may not have"):
        async with provider("plugin") as denied:
            await denied.generate_text("Hello")
    assert not cloud.requests

    manager.set_plugin_permissions("plugin", [service])
    async with provider("plugin") as granted, provider(manager.plugin_handle("plugin")) as by_handle:
        assert await granted.generate_text("Hello")
        assert await by_handle.generate_text("Hello")
        manager.revoke("plugin", service)
        sent = len(cloud.requests)
        for revoked in (granted, by_handle):
            with pytest.raises(KeyAccessDeniedError, match="not granted"):
                await revoked.generate_text("Hello")
        assert len(cloud.requests) == sent
    asked = {(entry.plugin, entry.service, entry.decision) for entry in manager.audit_entries()}
    assert {("plugin", service, "allowed"), ("plugin", service, "denied: not granted")} <= asked


@pytest.mark.parametrize("service", CLOUDS)
async def test_a_rotated_key_reaches_a_running_provider(
    cloud: Emulator, manager: ApiKeyManager, home: Path, service: str
) -> None:
    """Rotated by another process: here, by another manager of the same store."""
    member = "aws_secret_access_key" if service == "aws_bedrock" else "api_key"
    manager.set_api_key(service, credentials(cloud, service))
    owner = ApiKeyManager(home, master_key=MASTER_KEY)
    async with make(service, manager) as provider:
        assert await provider.generate_text("Hello")
        owner.rotate_credential(service, credentials(cloud, service, **{member: "a-key-that-is-wrong"}))
        with pytest.raises(AuthenticationError):
            await provider.generate_text("Hello")
        owner.set_api_key(service, credentials(cloud, service))
        assert await provider.generate_text("Hello")


@pytest.mark.parametrize("service", CLOUDS)
async def test_a_rotation_ends_no_stream_that_is_under_way(
    cloud: Emulator, manager: ApiKeyManager, service: str
) -> None:
    member = "aws_secret_access_key" if service == "aws_bedrock" else "api_key"
    manager.set_api_key(service, credentials(cloud, service))
    async with make(service, manager) as provider:
        async with provider.generate_text_stream("Hello") as stream:
            begun = await anext(stream)
            manager.rotate_credential(service, credentials(cloud, service, **{member: "a-key-that-is-wrong"}))
            with pytest.raises(AuthenticationError):
                await provider.generate_text("Hello")
            rest = [piece async for piece in stream]
        assert rest
        assert stream.response.text == begun + "".join(rest)
        manager.set_api_key(service, credentials(cloud, service))
        assert await provider.generate_text("Hello") == stream.response.text


@pytest.mark.parametrize("service", CLOUDS)
async def test_a_key_that_must_not_leave_works_through_a_provider(
    cloud: Emulator, manager: ApiKeyManager, service: str
) -> None:
    manager.set_api_key(service, credentials(cloud, service))
    manager.grant("plugin", service, export=False)

    async with make(service, manager.provider_access, plugin="plugin") as provider:
        assert await provider.generate_text("Hello")


async def test_a_damaged_store_stops_a_provider_with_its_own_error(
    cloud: Emulator, manager: ApiKeyManager, home: Path
) -> None:
    """Not "no credentials": those are there, and must not be looked for elsewhere."""
    manager.set_api_key("aws_bedrock", credentials(cloud, "aws_bedrock"))
    content = bytearray((home / "store.age").read_bytes())
    content[-1] ^= 1
    (home / "store.age").write_bytes(content)

    with pytest.raises(KeyStoreError, match="damaged"):
        async with make("aws_bedrock", ApiKeyManager(home, master_key=MASTER_KEY)) as provider:
            await provider.generate_text("Hello")
    assert not cloud.requests


@pytest.mark.parametrize("service", CLOUDS)
async def test_provider_for_honours_a_grant_that_may_not_be_exported_by_name_and_by_handle(
    cloud: Emulator, manager: ApiKeyManager, service: str
) -> None:
    """A plugin that may use a key but not see it is just what ``provider_for`` is for."""
    manager.set_api_key(service, credentials(cloud, service))
    manager.grant("reports", service, export=False)
    model = {"model": "claude"} if service == "aws_bedrock" else {"deployment_id": "chat"}

    for plugin in ("reports", manager.plugin_handle("reports")):
        async with provider_for(manager, plugin, service, retry=QUICK) as provider:
            assert await provider.generate_text("Hi", **model) == "You said: Hi"
    with pytest.raises(KeyAccessDeniedError):
        manager.get_api_key_secure("reports", service)


MODELS = {
    "aws_bedrock": ("us.anthropic.claude-sonnet-4-6", "anthropic.*", "us.amazon.nova-2-lite-v1:0"),
    "azure_openai": ("chat", "chat*", "other"),
}


@pytest.mark.parametrize("service", CLOUDS)
@pytest.mark.parametrize("by", ["plugin=", "provider_for", "handle"])
async def test_a_grant_for_some_models_lets_a_provider_call_those_and_no_others(
    cloud: Emulator, manager: ApiKeyManager, service: str, by: str
) -> None:
    """The provider says which model a call is for; another one is refused before anything is sent."""
    model, pattern, other = MODELS[service]
    manager.set_api_key(service, credentials(cloud, service))
    manager.grant("reports", service, models=[pattern], export=False)
    if by == "plugin=":
        provider: Any = make(service, manager, plugin="reports")
    else:
        plugin: Any = manager.plugin_handle("reports") if by == "handle" else "reports"
        provider = provider_for(manager, plugin, service, retry=QUICK)

    async with provider:
        assert await provider.generate_text("Hi", model) == "You said: Hi"
        async with provider.generate_text_stream("Hi", model) as stream:
            assert (await stream.collect()).text == "You said: Hi"
        sent = len(cloud.requests)
        with pytest.raises(KeyAccessDeniedError, match=f"may not use the model '{other}'.*not granted for this model"):
            await provider.generate_text("Hi", other)
        with pytest.raises(KeyAccessDeniedError):
            async with provider.generate_text_stream("Hi", other) as stream:
                await stream.collect()
        with pytest.raises(KeyAccessDeniedError):  # the body's model is the one that counts, where there is one
            await provider.chat("Hi", model=model, extra_body={"model": other})
        manager.revoke("reports", service)
        with pytest.raises(KeyAccessDeniedError, match="not granted"):
            await provider.generate_text("Hi", model)
        assert len(cloud.requests) == sent
    with pytest.raises(KeyAccessDeniedError):  # the key itself would be good for every model
        manager.get_api_key_secure("reports", service)

    used = [(entry.model, entry.decision) for entry in manager.audit_entries() if entry.operation == "use_model"]
    assert (model, "allowed") in used
    assert used.count((other, "denied: not granted for this model")) == 3
    assert manager.verify().ok


async def test_an_alias_is_judged_by_the_model_that_it_stands_for(cloud: Emulator, manager: ApiKeyManager) -> None:
    """What a caller writes is not what is sent: a pattern that fits the alias alone opens nothing."""
    manager.set_api_key("aws_bedrock", credentials(cloud, "aws_bedrock"))
    manager.grant("reports", "aws_bedrock", models=["claude*"])
    async with provider_for(manager, "reports", "aws_bedrock", retry=QUICK) as provider:
        with pytest.raises(KeyAccessDeniedError, match=r"us\.anthropic\.claude"):
            await provider.generate_text("Hi", "claude")
        manager.grant("reports", "aws_bedrock", models=["anthropic.claude-sonnet-*"])
        assert await provider.generate_text("Hi", "claude")
        with pytest.raises(KeyAccessDeniedError):
            await provider.generate_text("Hi", "claude-haiku")


async def test_a_model_that_was_permitted_is_not_asked_for_at_every_call(
    cloud: Emulator, manager: ApiKeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the key itself: looked at again after some seconds, and not a thread and a line for each call."""
    defaults: dict[str, Any] = credentials_from_manager.__kwdefaults__
    monkeypatch.setitem(defaults, "interval", 60.0)
    manager.set_api_key("aws_bedrock", credentials(cloud, "aws_bedrock"))
    manager.grant("reports", "aws_bedrock", models=["anthropic.*"])
    async with provider_for(manager, "reports", "aws_bedrock", retry=QUICK) as provider:
        for _ in range(5):
            await provider.generate_text("Hi", "claude")
    assert [entry.operation for entry in manager.audit_entries()].count("use_model") == 1


async def test_a_provider_without_a_plugin_or_a_manager_asks_nobody(cloud: Emulator, manager: ApiKeyManager) -> None:
    manager.set_api_key("aws_bedrock", credentials(cloud, "aws_bedrock"))
    async with make("aws_bedrock", manager) as provider:
        plane = await provider._plane()
        assert plane.permit is None


async def test_a_manager_of_somebody_elses_is_not_asked_for_models(cloud: Emulator) -> None:
    class Theirs:
        def get_api_key_secure(self, plugin: str, service: str) -> dict[str, str]:
            return credentials(cloud, service)

    async with make("aws_bedrock", Theirs(), plugin="reports") as provider:
        assert await provider.generate_text("Hi")


FAILURES = {
    "refused": Answer.error("internal"),
    "closed": Answer.cut(reset=True),
    "silent": Answer.text("late", first_delay=30),
}


def frames(error: BaseException) -> list[tuple[str, dict[str, object]]]:
    """File and variables of every frame that a tool would print."""
    found: list[tuple[str, dict[str, object]]] = []
    behind: BaseException | None = error
    while behind is not None:
        step: TracebackType | None = behind.__traceback__
        while step is not None:
            found.append((step.tb_frame.f_code.co_filename, dict(step.tb_frame.f_locals)))
            step = step.tb_next
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    return found


@pytest.mark.parametrize("transport", ["http11", "httpx"])
@pytest.mark.parametrize("service", CLOUDS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_an_error_of_a_call_takes_no_credentials_along_in_its_traceback(
    cloud: Emulator, manager: ApiKeyManager, service: str, transport: str, failure: str
) -> None:
    """rich, cgitb and error trackers print the variables of frames; signed headers were among them."""
    manager.set_api_key(service, credentials(cloud, service))
    cloud.script(FAILURES[failure])
    client = httpx.AsyncClient(trust_env=False) if transport == "httpx" else None
    async with make(service, manager, http_client=client) as provider:
        with pytest.raises(ApexLlmError) as caught:
            await provider.with_options(retry=None, timeout=0.5).generate_text("Hello")

    seen = frames(caught.value)
    ours = [(file, held) for file, held in seen if "/apex_llm/" in file]
    assert any("/transport/" in file or "/providers/" in file for file, _ in ours)  # the lines are still there
    secrets = (cloud.secret_access_key, cloud.api_key, "Signature=")
    assert not [
        (file, name)
        for file, held in ours
        for name, value in held.items()
        if any(secret in repr(value) for secret in secrets)
    ]
    if client is not None:
        await client.aclose()


async def test_an_error_of_the_set_up_does_not_take_the_environment_along(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*cloud.environment, *cloud.conflicting_variables):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "half-a-pair-0123456789")
    async with BedrockProvider(default_model="claude") as provider:
        for attempt in (provider.initialize, lambda: provider.generate_text("Hello")):
            with pytest.raises(MissingCredentialsError) as caught:
                await attempt()
            assert not [
                (file, name)
                for file, held in frames(caught.value)
                if "/apex_llm/" in file
                for name, value in held.items()
                if "half-a-pair" in repr(value)
            ]
