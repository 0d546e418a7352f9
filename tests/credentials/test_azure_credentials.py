"""Keys, tokens and Entra; azure-identity is the judge of what the token calls look like."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from credential_fakes import Clock, Fake, no_sleep

from apex_llm.credentials.azure import azure_credentials
from apex_llm.credentials.azure_entra import ClientSecret, WorkloadIdentity
from apex_llm.credentials.azure_managed import ManagedIdentity
from apex_llm.errors import AuthenticationError, ConfigurationError, InvalidEndpointError, MissingCredentialsError

TENANT = "11111111-2222-3333-4444-555555555555"
SCOPE = "https://cognitiveservices.azure.com/.default"


def jwt(expires_at: float) -> str:
    def part(value) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': int(expires_at), 'aud': 'x'})}.signature"


def made(environ=None, **options):
    options.setdefault("sleep", no_sleep)
    return azure_credentials(environ=environ or {}, **options)


def token(value: str = "entra-token", **more):
    return {"token_type": "Bearer", "expires_in": 3599, "access_token": value, **more}


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "environ", "kind", "value"),
    [
        ({"api_key": " k\n"}, {}, "api-key", "k"),
        ({"azure_ad_token": "t"}, {}, "bearer", "t"),
        ({"azure_ad_token": "Bearer t"}, {}, "bearer", "t"),
        ({"azure_ad_token_provider": lambda: "t"}, {}, "bearer", "t"),
        ({}, {"AZURE_OPENAI_API_KEY": "k"}, "api-key", "k"),
        ({}, {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_AD_TOKEN": "t"}, "bearer", "t"),
        ({"api_key": "mine"}, {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_AD_TOKEN": "t"}, "api-key", "mine"),
    ],
)
async def test_which_one_is_used_and_in_which_header(options, environ, kind, value) -> None:
    found = made(environ, **options)
    given = await found.source.get()

    assert (found.kind, given.header, given.value.reveal()) == (kind, kind, value)


def test_two_ways_at_once_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="api_key= and azure_ad_token= were given"):
        made(api_key="a", azure_ad_token="b")


@pytest.mark.parametrize("options", [{"api_key": ""}, {"azure_ad_token": " "}, {"api_key": "a\nb"}])
def test_empty_and_unsendable_values_are_told_at_once(options) -> None:
    with pytest.raises(MissingCredentialsError):
        made(**options)


async def test_nothing_names_each_source_that_was_tried() -> None:
    with pytest.raises(MissingCredentialsError) as caught:
        await made({"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "cid"}).source.get()
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT"):
        assert name in str(caught.value)


async def test_sync_providers_run_in_a_thread_and_async_ones_on_the_loop() -> None:
    seen = []

    def sync():
        seen.append(threading.current_thread())
        return "a"

    async def on_loop():
        seen.append(threading.current_thread())
        return "b"

    await made(azure_ad_token_provider=sync).source.get()
    await made(azure_ad_token_provider=on_loop).source.get()

    assert seen[0] is not threading.main_thread()
    assert seen[1] is threading.main_thread()


@pytest.mark.parametrize("shape", ["jwt", "object", "object without renewal"])
async def test_a_token_is_kept_for_as_long_as_it_says(shape: str) -> None:
    clock = Clock()
    calls = []

    def provider():
        calls.append(1)
        ends = clock.now + 3600
        return jwt(ends) if shape == "jwt" else SimpleNamespace(token=f"t{len(calls)}", expires_on=int(ends))

    source = made(azure_ad_token_provider=provider, clock=clock).source
    first = await source.get()
    assert first.expires_at == pytest.approx(clock.now + 3600, abs=1)
    clock.now += 3290
    assert source.current() is first
    clock.now += 20
    assert await source.get() is first
    await settle()
    assert len(calls) == 2
    clock.now += 3600
    await source.get()
    assert len(calls) == 3


async def test_an_opaque_token_is_asked_for_again_after_a_minute() -> None:
    clock, calls = Clock(), []

    def provider():
        calls.append(1)
        return f"opaque-{len(calls)}"

    source = made(azure_ad_token_provider=provider, clock=clock).source
    for _ in range(10):
        assert (await source.get()).value.reveal() == "opaque-1"
    clock.now += 61
    await source.get()
    await settle()
    assert source.current().value.reveal() == "opaque-2"


@pytest.mark.parametrize("given", [None, 3, "", {"a": 1}])
async def test_a_provider_that_gives_no_token_is_a_typed_error(given) -> None:
    with pytest.raises(ConfigurationError):
        await made(azure_ad_token_provider=lambda: given).source.get()


async def test_any_object_with_get_token_serves_sync_or_async() -> None:
    class Sync:
        def get_token(self, *scopes):
            assert scopes == (SCOPE,)
            return SimpleNamespace(token="sync", expires_on=int(time.time()) + 3600)

    class Async:
        async def get_token(self, *scopes):
            assert scopes == (SCOPE,)
            return SimpleNamespace(token="async", expires_on=int(time.time()) + 3600)

    for credential in (Sync(), Async()):
        found = await made(credential=credential).source.get()
        assert found.value.reveal() == type(credential).__name__.lower()
    with pytest.raises(ConfigurationError, match="no get_token"):
        made(credential="key")


async def test_errors_of_a_credential_are_told_by_their_code_only() -> None:
    class ClientAuthenticationError(Exception):
        pass

    class Broken:
        async def get_token(self, scope):
            raise ClientAuthenticationError("AADSTS7000222: secret canary expired")

    with pytest.raises(AuthenticationError) as caught:
        await made(credential=Broken()).source.get()
    assert caught.value.code == "AADSTS7000222"
    assert "expired" in caught.value.hint
    assert "canary" not in str(caught.value)


async def test_client_secret_is_one_call(fake: Fake, send) -> None:
    fake.answer = lambda _: token()
    credential = ClientSecret(TENANT, "cid", "s&c=r+t", authority=fake.url)

    found = await made(credential=credential, send=send).source.get()

    assert found.value.reveal() == "entra-token"
    assert found.expires_at == pytest.approx(time.time() + 3599, abs=3)
    (seen,) = fake.seen
    assert seen.path == f"/{TENANT}/oauth2/v2.0/token"
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert {name: value[0] for name, value in parse_qs(seen.body.decode()).items()} == {
        "client_id": "cid",
        "client_secret": "s&c=r+t",
        "grant_type": "client_credentials",
        "scope": SCOPE,
    }


async def test_workload_identity_asks_as_azure_identity_does(fake: Fake, send, tmp_path, monkeypatch) -> None:
    """Its own pipeline insists on https, so only its request builder is the judge here."""
    file = tmp_path / "jwt"
    file.write_text("assertion-1\n")
    fake.answer = lambda _: token()
    environ = {
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": "cid",
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "AZURE_AUTHORITY_HOST": fake.url,
    }
    source = made(environ, send=send).source
    await source.get()
    file.write_text("assertion-2")
    source.invalidate()
    await source.get()

    from azure.identity._internal.aad_client import AadClient

    theirs = AadClient(TENANT, "cid", authority="https://login.example")._get_jwt_assertion_request(
        [SCOPE], "assertion-2"
    )
    assert parse_qs(fake.seen[1].body.decode()) == {name: [value] for name, value in theirs.body.items()}
    assert urlsplit(theirs.url).path == fake.seen[1].path
    assert parse_qs(fake.seen[0].body.decode())["client_assertion"] == ["assertion-1"]


async def test_the_environment_picks_client_secret_first(fake: Fake, send) -> None:
    fake.answer = lambda _: token()
    environ = {
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": "cid",
        "AZURE_CLIENT_SECRET": "s",
        "AZURE_FEDERATED_TOKEN_FILE": "/nowhere",
        "AZURE_AUTHORITY_HOST": fake.url,
    }
    found = made(environ, send=send)
    await found.source.get()

    assert found.kind == "bearer"
    assert "client_secret" in parse_qs(fake.seen[0].body.decode())


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, "AADSTS7000215", "not its id"),
        (400, "AADSTS700016", "AZURE_CLIENT_ID"),
        (400, "AADSTS90002", "AZURE_TENANT_ID"),
        (400, "AADSTS700213", "subject"),
    ],
)
async def test_refusals_of_entra_are_final_and_come_with_advice(fake: Fake, send, status, code, hint) -> None:
    described = f"{code}: Refused for secret-canary. Trace ID: 11 Correlation ID: 22 Timestamp: x"
    fake.answer = lambda _: (status, {"error": "invalid_client", "error_description": described, "trace_id": "11"})

    with pytest.raises(AuthenticationError) as caught:
        await made(credential=ClientSecret(TENANT, "cid", "secret-canary", authority=fake.url), send=send).source.get()

    assert len(fake.seen) == 1
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (code, status, "11")
    assert hint in caught.value.hint
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("trouble", [429, 500, 503])
async def test_passing_trouble_is_tried_again(fake: Fake, send, trouble: int) -> None:
    answers = [trouble, trouble, token()]
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    fake.answer = lambda _: (answers.pop(0), "", {"retry-after": "2"}) if len(answers) > 1 else answers[0]
    credential = ClientSecret(TENANT, "cid", "s", authority=fake.url)

    assert (await made(credential=credential, send=send, sleep=sleep).source.get()).value.reveal() == "entra-token"
    assert waits == [2.0, 2.0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"access_token": null}', '{"access_token": 5}', b"\xff"])
async def test_answers_without_a_token_are_typed_errors(fake: Fake, send, content) -> None:
    fake.answer = lambda _: (200, content)

    with pytest.raises(MissingCredentialsError):
        await made(credential=ClientSecret(TENANT, "cid", "s", authority=fake.url), send=send).source.get()


async def test_the_old_token_serves_while_entra_is_down(fake: Fake, send) -> None:
    clock = Clock()
    fake.answer = lambda _: token()
    source = made(credential=ClientSecret(TENANT, "c", "s", authority=fake.url), send=send, clock=clock).source
    first = await source.get()
    fake.answer = lambda _: 503
    clock.now += 3590
    assert await source.get() is first
    clock.now += 20
    with pytest.raises(MissingCredentialsError, match="The token of ClientSecret could not be obtained") as caught:
        await source.get()
    assert caught.value.retryable


@pytest.mark.parametrize(("more", "after"), [({"refresh_in": 600}, 600), ({"expires_in": 86400}, 43200)])
async def test_a_long_token_is_renewed_early_in_the_background(fake: Fake, send, more, after) -> None:
    clock = Clock()
    fake.answer = lambda _: token(**more)
    source = made(credential=ClientSecret(TENANT, "c", "s", authority=fake.url), send=send, clock=clock).source
    first = await source.get()
    clock.now += after - 1
    assert source.current() is first
    clock.now += 2
    assert await source.get() is first
    async with asyncio.timeout(5):
        while len(fake.seen) < 2:
            await asyncio.sleep(0.01)


async def test_managed_identity_of_a_machine(fake: Fake, send) -> None:
    now = int(time.time())
    fake.answer = lambda _: token(expires_in="86399", expires_on=str(now + 86399))
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url}

    found = await made(environ, credential=ManagedIdentity(client_id="cid"), send=send).source.get()

    assert found.expires_at == pytest.approx(now + 86399, abs=3)
    (seen,) = fake.seen
    assert seen.headers["metadata"] == "true"
    assert seen.path == (
        "/metadata/identity/oauth2/token?api-version=2018-02-01"
        "&resource=https://cognitiveservices.azure.com&client_id=cid"
    )


async def test_app_service_identity_is_picked_from_the_environment(fake: Fake, send) -> None:
    now = int(time.time())
    fake.answer = lambda _: {"access_token": "app", "expires_on": str(now + 3600), "resource": "r"}
    environ = {"IDENTITY_ENDPOINT": f"{fake.url}/msi/token", "IDENTITY_HEADER": "header-canary"}

    found = made(environ, send=send)
    given = await found.source.get()

    assert (found.kind, given.value.reveal(), given.expires_at) == ("bearer", "app", now + 3600)
    (seen,) = fake.seen
    assert seen.headers["x-identity-header"] == "header-canary"
    assert seen.path == "/msi/token?api-version=2019-08-01&resource=https://cognitiveservices.azure.com"


async def test_both_identities_ask_as_azure_identity_does(fake: Fake, send, monkeypatch) -> None:
    from azure.identity import ManagedIdentityCredential

    now = int(time.time())
    fake.answer = lambda _: {
        "access_token": "x",
        "expires_on": str(now + 3600),
        "expires_in": "3600",
        "resource": "https://cognitiveservices.azure.com",
        "token_type": "Bearer",
    }
    for environ in (
        {"IDENTITY_ENDPOINT": f"{fake.url}/msi/token", "IDENTITY_HEADER": "h"},
        {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url},
    ):
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            await asyncio.to_thread(lambda: ManagedIdentityCredential(client_id="cid").get_token(SCOPE))
        theirs = fake.seen[-1]
        await made(environ, credential=ManagedIdentity(client_id="cid"), send=send).source.get()
        ours = fake.seen[-1]

        assert parse_qs(urlsplit(ours.path).query) == parse_qs(urlsplit(theirs.path).query)
        assert urlsplit(ours.path).path == urlsplit(theirs.path).path
        for name in ("metadata", "x-identity-header"):
            assert ours.headers.get(name) == theirs.headers.get(name) or name == "metadata"


async def test_a_machine_without_that_identity(fake: Fake, send) -> None:
    fake.answer = lambda _: (400, {"error": "invalid_request", "error_description": "Identity not found"})
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url}

    with pytest.raises(MissingCredentialsError, match="Identity not found"):
        await made(environ, credential=ManagedIdentity(), send=send).source.get()
    assert len(fake.seen) == 1


async def test_an_identity_service_that_is_being_updated_is_waited_for(fake: Fake, send) -> None:
    answers: list = [410, 404, 429, 500, token()]
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    fake.answer = lambda _: answers.pop(0)
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url}

    await made(environ, credential=ManagedIdentity(), send=send, sleep=sleep).source.get()

    assert waits == [2.5, 1.6, 3.2, 6.4]


@pytest.mark.parametrize(
    ("environ", "credential"),
    [
        ({"AZURE_AUTHORITY_HOST": "http://evil.example"}, ClientSecret(TENANT, "c", "s")),
        ({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://evil.example"}, ManagedIdentity()),
        ({"IDENTITY_ENDPOINT": "http://10.0.0.1/x", "IDENTITY_HEADER": "h"}, ManagedIdentity()),
    ],
)
async def test_secrets_go_over_http_to_this_machine_only(send, environ, credential) -> None:
    with pytest.raises(InvalidEndpointError):
        await made(environ, credential=credential, send=send).source.get()


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "a b", "x?y", "a\n"])
def test_a_tenant_cannot_change_the_path(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match="tenant id"):
        ClientSecret(tenant, "c", "s")
    with pytest.raises(ConfigurationError, match="tenant id"):
        WorkloadIdentity(tenant, "c", "/x")


async def test_identities_with_protocols_of_their_own_point_to_azure_identity(send) -> None:
    environ = {"IDENTITY_ENDPOINT": "http://127.0.0.1:1/x", "IMDS_ENDPOINT": "http://127.0.0.1:1"}

    with pytest.raises(MissingCredentialsError, match="IMDS_ENDPOINT") as caught:
        await made(environ, credential=ManagedIdentity(), send=send).source.get()
    assert "apex-llm[azure]" in caught.value.hint
