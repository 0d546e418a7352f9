"""Credentials in a key manager: followed while a provider runs, asked in a plugin's name, left out when empty."""

from __future__ import annotations

import threading
import time
from unittest.mock import MagicMock, create_autospec

import pytest
from credential_fakes import Clock

from apex_llm import get_provider, provider_for
from apex_llm.credentials.aws import aws_credentials, bedrock_bearer
from apex_llm.credentials.azure import azure_credentials
from apex_llm.credentials.manager import credentials_from_manager
from apex_llm.errors import ConfigurationError, KeyAccessDeniedError, KeyStoreError, MissingCredentialsError

KEYS = {"aws_access_key_id": "AKID", "aws_secret_access_key": "s", "aws_region": "eu-west-1"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "es"}


class Manager:
    def __init__(self, **entries) -> None:
        self.entries = entries
        self.granted = {"plugin-a"}
        self.calls: list[str] = []
        self.threads: list[threading.Thread] = []
        self.failure: Exception | None = None

    def get_api_key(self, service):
        self.threads.append(threading.current_thread())
        self.calls.append(service)
        if self.failure:
            raise self.failure
        return self.entries.get(service)

    def get_api_key_secure(self, plugin, service):
        if plugin not in self.granted:
            raise KeyAccessDeniedError(f"{plugin} may not have {service}")
        return self.get_api_key(service)


def held(manager, service="aws_bedrock", **options):
    return credentials_from_manager(manager, service, **options)


async def test_keys_and_settings_come_from_the_entry_in_a_thread() -> None:
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager)

    assert await source.settings() == {"aws_region": "eu-west-1"}
    found = await aws_credentials(manager=source, environ=ENVIRONMENT).get()

    assert found.access_key_id == "AKID"
    assert found.session_token is None
    assert manager.threads[0] is not threading.main_thread()
    assert source.kind == "keys"
    assert bedrock_bearer(manager=source, environ={"AWS_BEARER_TOKEN_BEDROCK": "env"}) is None


async def test_an_empty_entry_leaves_it_to_the_next_source() -> None:
    source = held(Manager())
    assert await source.settings() == {}
    assert source.kind is None

    following = aws_credentials(manager=source, environ=ENVIRONMENT)
    assert (await following.get()).access_key_id == "AKIDENV"
    assert following.current().access_key_id == "AKIDENV"
    assert bedrock_bearer(manager=source, environ={"AWS_BEARER_TOKEN_BEDROCK": "env"}).current().value.reveal() == "env"
    with pytest.raises(MissingCredentialsError, match="holds no credentials for 'aws_bedrock'"):
        await source.aws().get()


async def test_a_rotated_key_reaches_a_running_provider_within_seconds() -> None:
    clock = Clock()
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager, clock=clock).aws()
    first = await source.get()
    for _ in range(100):
        assert source.current() is first
    assert len(manager.calls) == 1
    manager.entries["aws_bedrock"] = {**KEYS, "aws_access_key_id": "AKIDNEW"}
    clock.now += 2.5

    assert source.current() is None
    assert (await source.get()).access_key_id == "AKIDNEW"
    assert len(manager.calls) == 2


async def test_an_entry_that_did_not_change_keeps_its_identity() -> None:
    clock = Clock()
    source = held(Manager(aws_bedrock=KEYS), clock=clock).aws()
    first = await source.get()
    clock.now += 3

    assert await source.get() is first


async def test_an_invalidated_entry_is_read_again_at_once() -> None:
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager).aws()
    await source.get()
    manager.entries["aws_bedrock"] = {**KEYS, "aws_access_key_id": "AKIDNEW"}
    source.invalidate()

    assert (await source.get()).access_key_id == "AKIDNEW"


async def test_a_plugin_gets_what_it_was_granted_and_loses_it_when_revoked() -> None:
    clock = Clock()
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager, plugin="plugin-a", clock=clock).aws()
    assert (await source.get()).access_key_id == "AKID"
    manager.granted.clear()
    clock.now += 3

    with pytest.raises(KeyAccessDeniedError):
        await source.get()
    assert source.current() is None
    with pytest.raises(KeyAccessDeniedError):
        await held(manager, plugin="plugin-b").settings()


async def test_a_removed_entry_is_noticed() -> None:
    clock = Clock()
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager, clock=clock).aws()
    await source.get()
    manager.entries.clear()
    clock.now += 3

    with pytest.raises(MissingCredentialsError):
        await source.get()


async def test_a_store_that_is_locked_for_a_moment_does_not_stop_anybody() -> None:
    clock = Clock()
    manager = Manager(aws_bedrock=KEYS)
    source = held(manager, clock=clock).aws()
    first = await source.get()
    manager.failure = KeyStoreError("locked")
    clock.now += 3

    assert await source.get() is first
    with pytest.raises(KeyStoreError, match="locked"):
        await held(manager).settings()


@pytest.mark.parametrize(
    ("entry", "key"),
    [("ABSK-key", "ABSK-key"), ({"bearer_token": "b"}, "b"), ('{"api_key": "from-json"}', "from-json")],
)
async def test_a_single_key_of_bedrock_is_a_bearer_key(entry, key) -> None:
    source = held(Manager(aws_bedrock=entry))
    await source.settings()

    assert source.kind == "bearer"
    assert (await bedrock_bearer(manager=source, environ={}).get()).value.reveal() == key
    assert (await bedrock_bearer("explicit", manager=source, environ={}).get()).value.reveal() == "explicit"


@pytest.mark.parametrize(
    ("entry", "kind", "value"),
    [
        ("key", "api-key", "key"),
        ({"api_key": "key", "api_base": "https://x.openai.azure.com", "deployment": "d"}, "api-key", "key"),
        ({"azure_ad_token": "t", "endpoint": "https://x.openai.azure.com"}, "bearer", "t"),
    ],
)
async def test_entries_of_azure(entry, kind, value) -> None:
    source = held(Manager(azure_openai=entry), "azure_openai")
    settings = await source.settings()
    made = azure_credentials(manager=source, environ={"AZURE_OPENAI_API_KEY": "env"})
    found = await made.source.get()

    assert made.kind == kind
    if isinstance(entry, dict):
        assert settings["api_base"] == "https://x.openai.azure.com"
        assert settings.get("default_deployment") == entry.get("deployment")
    assert (found.header, found.value.reveal()) == (kind, value)
    assert not {"api_key", "azure_ad_token"} & set(settings)
    empty = azure_credentials(manager=held(Manager(), "azure_openai"), environ={"AZURE_OPENAI_API_KEY": "env"})
    assert (await empty.source.get()).value.reveal() == "env"


@pytest.mark.parametrize(
    "entry", [{"aws_access_key_id": "AKID"}, {"aws_access_key_id": "AKID", "aws_secret_access_key": ""}]
)
async def test_half_an_entry_is_an_error_and_not_completed_from_the_environment(entry) -> None:
    source = aws_credentials(manager=held(Manager(aws_bedrock=entry)), environ=ENVIRONMENT)

    with pytest.raises(MissingCredentialsError, match=r"key manager .* incomplete"):
        await source.get()


async def test_what_is_no_manager_or_no_entry_is_told() -> None:
    with pytest.raises(ConfigurationError, match="no method get_api_key"):
        held(object())
    with pytest.raises(ConfigurationError, match="is of type int"):
        await held(Manager(aws_bedrock=5)).settings()
    with pytest.raises(MissingCredentialsError, match="of the kind that is needed"):
        await held(Manager(aws_bedrock={"note": "x"})).aws().get()


@pytest.mark.parametrize("make", [MagicMock, lambda: MagicMock(spec=Manager()), lambda: create_autospec(Manager())])
async def test_a_mock_of_a_manager_is_asked_itself_and_not_what_it_makes_up(make) -> None:
    """It answers to ``provider_access`` too, with a mock of which nobody has told what to return."""
    manager = make()
    manager.get_api_key_secure.return_value = KEYS

    source = held(manager, plugin="plugin-a")

    assert (await source.aws().get()).access_key_id == "AKID"
    manager.get_api_key_secure.assert_called_once_with("plugin-a", "aws_bedrock")


async def test_a_proxy_of_a_manager_gives_what_the_manager_has_for_providers() -> None:
    class Access(Manager):
        def permit_model(self, plugin, service, models): ...

    class WithAccess(Manager):
        provider_access = Access(aws_bedrock=KEYS)

    class Proxy:
        def __init__(self, inner) -> None:
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    source = held(Proxy(WithAccess()), plugin="plugin-a")

    assert source.checks_models
    assert (await source.aws().get()).access_key_id == "AKID"


class AccessIsMethod(Manager):
    def provider_access(self):
        return self


class AccessIsFlag(Manager):
    provider_access = True


class PermitIsFlag(Manager):
    permit_model = True


@pytest.mark.parametrize(
    ("manager", "told"),
    [
        (Manager, "is the class Manager"),
        (None, "NoneType. has no method get_api_key_secure"),
        ({"aws_bedrock": KEYS}, "dict. has no method get_api_key_secure"),
        (AccessIsMethod(), "provider_access .* is a method without get_api_key_secure"),
        (AccessIsFlag(), "provider_access .* is a bool without get_api_key_secure"),
        (PermitIsFlag(), "has a bool for the method permit_model"),
    ],
)
def test_what_is_not_quite_a_manager_is_told_before_it_is_asked(manager, told) -> None:
    with pytest.raises(ConfigurationError, match=told):
        held(manager, plugin="plugin-a")
    with pytest.raises(ConfigurationError, match=told):
        provider_for(manager, "plugin-a", "aws_bedrock")


@pytest.mark.parametrize("plugin", [None, ""])
def test_a_provider_for_nobody_is_not_made(plugin) -> None:
    """It would be one for the application, with nothing checked."""
    with pytest.raises(ConfigurationError, match="no plugin"):
        provider_for(Manager(aws_bedrock=KEYS), plugin, "aws_bedrock")


@pytest.mark.parametrize("service", ["aws_bedrock", "azure_openai"])
def test_a_plugin_without_a_manager_is_refused(service) -> None:
    """It would get what the environment holds for the application."""
    for config in ({"plugin": "plugin-a"}, {"plugin": "", "api_key_manager": Manager()}):
        with pytest.raises(ConfigurationError, match="for a plugin was given no"):
            get_provider(service, **config)


async def test_managers_of_others_may_refuse_in_their_own_way() -> None:
    manager = Manager()
    manager.failure = PermissionError("canary")

    with pytest.raises(KeyAccessDeniedError) as caught:
        await held(manager).settings()
    assert "canary" not in str(caught.value)


async def test_asynchronous_managers_serve_too() -> None:
    class Async:
        async def get_api_key(self, service):
            return KEYS

    assert (await held(Async()).aws().get()).access_key_id == "AKID"


def test_a_clock_that_is_set_back_lets_no_key_stay_that_was_taken_away() -> None:
    """What was asked for is believed for some seconds, and not until the clock comes there again."""
    assert credentials_from_manager.__kwdefaults__["clock"] is time.monotonic
