"""Explicit values, environment, files, region and bearer: what wins, and that nothing is ever mixed."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import botocore.credentials
import botocore.session
import pytest
from credential_fakes import Clock, Fake, iso, no_sleep

from apex_llm.credentials.aws import aws_credentials, aws_region, bedrock_bearer, region_of
from apex_llm.errors import ConfigurationError, InvalidEndpointError, MissingCredentialsError
from apex_llm.types.secrets import AwsCredentials, Secret

PAIR = {"aws_access_key_id": "AKIDEXPLICIT", "aws_secret_access_key": "explicit-secret"}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDENV",
    "AWS_SECRET_ACCESS_KEY": "env-secret",
    "AWS_SESSION_TOKEN": "env-token",
}


def revealed(found: AwsCredentials):
    return (
        found.access_key_id,
        found.secret_access_key.reveal(),
        found.session_token.reveal() if found.session_token else None,
    )


async def got(**options):
    options.setdefault("environ", {})
    return revealed(await aws_credentials(sleep=no_sleep, **options).get())


def frozen(key="K", secret="S", token="T"):
    return botocore.credentials.ReadOnlyCredentials(key, secret, token)


class Object:
    access_key, secret_key, token = "K", "S", "T"


def refreshable():
    return botocore.credentials.RefreshableCredentials(
        "K", "S", "T", datetime(2099, 1, 1, tzinfo=UTC), refresh_using=lambda: None, method="test"
    )


def aio_refreshable():
    from aiobotocore.credentials import AioRefreshableCredentials

    return AioRefreshableCredentials(
        "K", "S", "T", datetime(2099, 1, 1, tzinfo=UTC), refresh_using=lambda: None, method="test"
    )


def botocore_session():
    session = botocore.session.Session()
    session.set_credentials("K", "S", "T")
    return session


def boto3_session():
    import boto3

    return boto3.Session("K", "S", "T", region_name="eu-west-1")


def aiobotocore_session():
    from aiobotocore.session import get_session

    session = get_session()
    session.set_credentials("K", "S", "T")
    return session


async def async_callback():
    return {"AccessKeyId": "K", "SecretAccessKey": "S", "SessionToken": "T"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"aws_access_key_id": "K", "aws_secret_access_key": "S", "aws_session_token": "T"},
        lambda: {"AccessKeyId": "K", "SecretAccessKey": "S", "Token": "T", "Expiration": "2099-01-01T00:00:00Z"},
        lambda: {"accessKeyId": "K", "secretAccessKey": "S", "sessionToken": "T", "expiration": 4070908800000},
        lambda: {"access_key_id": " K\n", "secret_access_key": Secret("S"), "session_token": "T", "aws_region": "x"},
        lambda: AwsCredentials(access_key_id="K", secret_access_key=Secret("S"), session_token=Secret("T")),
        lambda: SimpleNamespace(aws_access_key_id="K", aws_secret_access_key="S", aws_session_token="T"),
        Object,
        frozen,
        refreshable,
        aio_refreshable,
        lambda: botocore.credentials.Credentials("K", "S", "T"),
        botocore_session,
        boto3_session,
        aiobotocore_session,
        lambda: frozen,
        lambda: async_callback,
        lambda: lambda: async_callback(),
        lambda: lambda: boto3_session(),
        lambda: aws_credentials(credentials=frozen(), environ={}),
    ],
)
async def test_credentials_are_taken_in_every_form_people_have_them(make) -> None:
    assert await got(credentials=make(), environ=ENVIRONMENT) == ("K", "S", "T")


@pytest.mark.parametrize("make", [refreshable, aio_refreshable, lambda: {**PAIR, "Expiration": "2099-01-01T00:00:00Z"}])
async def test_the_expiry_comes_along(make) -> None:
    found = await aws_credentials(credentials=make(), environ={}).get()

    assert found.expires_at == datetime(2099, 1, 1, tzinfo=UTC).timestamp()


async def test_blocking_callbacks_and_sessions_run_off_the_loop() -> None:
    seen = []

    class Blocking:
        def get_frozen_credentials(self):
            seen.append(threading.current_thread())
            return frozen()

    class Session:
        def get_credentials(self):
            seen.append(threading.current_thread())
            return Blocking()

    def callback():
        seen.append(threading.current_thread())
        return Session()

    assert await got(credentials=callback) == ("K", "S", "T")
    assert len(seen) == 3
    assert threading.main_thread() not in seen
    assert all(thread.daemon for thread in seen)


async def test_a_callback_is_asked_again_before_what_it_gave_expires() -> None:
    clock, calls = Clock(), []

    def callback():
        calls.append(1)
        return {**PAIR, "expires_at": clock.now + 3600, "aws_access_key_id": f"K{len(calls)}"}

    source = aws_credentials(credentials=callback, environ={}, clock=clock)
    assert (await source.get()).access_key_id == "K1"
    assert (await source.get()).access_key_id == "K1"
    clock.now += 3100
    assert (await source.get()).access_key_id == "K2"


@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        ({"aws_access_key_id": "K"}, "secret access key is missing"),
        ({"aws_access_key_id": "K", "aws_secret_access_key": ""}, "secret access key is missing"),
        ({"aws_access_key_id": "", "aws_secret_access_key": "S"}, "access key id is missing"),
        ({"aws_session_token": "T"}, "access key id and the secret access key is missing"),
        ({}, "missing or empty"),
        ({"aws_access_key_id": "", "aws_secret_access_key": ""}, "missing or empty"),
        ({"aws_access_key_id": "K", "aws_secret_access_key": "a\nb"}, "control character"),
    ],
)
async def test_an_incomplete_pair_says_so_and_is_never_completed_from_elsewhere(given, lacks) -> None:
    with pytest.raises(MissingCredentialsError, match=lacks):
        aws_credentials(credentials=given, environ=ENVIRONMENT)
    with pytest.raises(MissingCredentialsError, match=lacks):
        await aws_credentials(credentials=lambda: given, environ=ENVIRONMENT).get()


@pytest.mark.parametrize("given", [3, "AKID", object(), ["a", "b"]])
def test_what_cannot_be_credentials_is_a_configuration_error(given) -> None:
    with pytest.raises(ConfigurationError, match="cannot be taken from"):
        aws_credentials(credentials=given, environ={})


async def test_the_environment_is_one_source_and_at_hand_without_waiting() -> None:
    source = aws_credentials(environ=ENVIRONMENT)

    assert revealed(source.current()) == ("AKIDENV", "env-secret", "env-token")


async def test_an_explicit_pair_takes_no_token_from_the_environment() -> None:
    assert await got(credentials=PAIR, environ=ENVIRONMENT) == ("AKIDEXPLICIT", "explicit-secret", None)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("rest", [{}, {"AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": ""}])
async def test_half_a_pair_in_the_environment_is_an_error_though_a_file_has_a_whole_one(home, name, rest) -> None:
    (home / ".aws" / "credentials").write_text("[default]\naws_access_key_id=F\naws_secret_access_key=FS\n")

    with pytest.raises(MissingCredentialsError, match="environment are incomplete"):
        await got(environ={**rest, name: "value"}, home=home)


async def test_temporary_credentials_of_the_environment_are_read_again() -> None:
    clock = Clock()
    environ = dict(ENVIRONMENT)
    environ["AWS_CREDENTIAL_EXPIRATION"] = datetime.fromtimestamp(clock.now + 3600, UTC).isoformat()
    source = aws_credentials(environ=environ, clock=clock)
    await source.get()
    environ["AWS_ACCESS_KEY_ID"] = "AKIDNEW"
    environ["AWS_CREDENTIAL_EXPIRATION"] = datetime.fromtimestamp(clock.now + 7200, UTC).isoformat()
    clock.now += 3100

    assert (await source.get()).access_key_id == "AKIDNEW"


async def test_a_profile_named_in_code_beats_the_environment(home) -> None:
    (home / ".aws" / "credentials").write_text("[work]\naws_access_key_id=F\naws_secret_access_key=FS\n")

    assert await got(profile="work", environ=ENVIRONMENT, home=home) == ("F", "FS", None)
    assert await got(environ={**ENVIRONMENT, "AWS_PROFILE": "work"}, home=home) == (
        "AKIDENV",
        "env-secret",
        "env-token",
    )


async def test_rotated_keys_of_the_shared_file_reach_a_running_program(home) -> None:
    clock = Clock()
    file = home / ".aws" / "credentials"
    file.write_text("[default]\naws_access_key_id=OLD\naws_secret_access_key=S\n")
    source = aws_credentials(environ={}, home=home, clock=clock)
    assert (await source.get()).access_key_id == "OLD"
    file.write_text("[default]\naws_access_key_id=NEW\naws_secret_access_key=S\n")
    clock.now += 6
    assert (await source.get()).access_key_id == "OLD", "nobody waits for a file"
    async with asyncio.timeout(5):
        while (await source.get()).access_key_id != "NEW":
            await asyncio.sleep(0.01)


async def test_nothing_anywhere_names_each_source_that_was_tried(home, send) -> None:
    environ = {"AWS_EC2_METADATA_DISABLED": "true"}

    with pytest.raises(MissingCredentialsError) as caught:
        await got(environ=environ, home=home, send=send)

    text = str(caught.value)
    for part in (
        "AWS_ACCESS_KEY_ID",
        "profile 'default'",
        str(home / ".aws"),
        "container",
        "AWS_EC2_METADATA_DISABLED",
    ):
        assert part in text
    assert "AWS_PROFILE" in caught.value.hint


async def test_a_profile_that_does_not_exist_names_those_that_do(home) -> None:
    (home / ".aws" / "config").write_text("[profile one]\nregion=eu-west-1\n[default]\n")

    with pytest.raises(MissingCredentialsError, match="'nine' is neither in") as caught:
        await got(environ={"AWS_PROFILE": "nine"}, home=home)
    assert "default, one" in caught.value.hint


async def test_a_broken_file_is_told_by_its_line_without_quoting_it(home) -> None:
    (home / ".aws" / "credentials").write_text("[default]\naws_secret_access_key_canary\n")

    with pytest.raises(ConfigurationError) as caught:
        await got(home=home)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_region_precedence(home) -> None:
    (home / ".aws" / "config").write_text("[default]\nregion = eu-west-3\n[profile w]\nregion = ap-south-1\n")
    both = {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "eu-north-1"}

    assert await aws_region("ca-central-1", environ=both, home=home) == ("ca-central-1", "argument")
    assert await aws_region(environ=both, home=home) == ("us-west-2", "AWS_REGION")
    assert await aws_region(environ={**both, "AWS_REGION": ""}, home=home) == ("eu-north-1", "AWS_DEFAULT_REGION")
    assert await aws_region(environ={}, home=home) == ("eu-west-3", "profile 'default'")
    assert await aws_region(environ={"AWS_PROFILE": "w"}, home=home) == ("ap-south-1", "profile 'w'")
    assert await aws_region(environ={}, profile="w", home=home) == ("ap-south-1", "profile 'w'")
    assert await aws_region(environ={}, home=home / "nobody") == ("us-east-1", "default")


@pytest.mark.parametrize(
    "region",
    ["us-east-1", "ap-southeast-7", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1"],
)
async def test_regions_of_every_partition_pass(region: str) -> None:
    assert await aws_region(region, environ={}) == (region, "argument")


@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("us-east-1a", "its region is us-east-1"),
        ("US-East-1", "Did you mean us-east-1"),
        ("us_east_1", "Did you mean us-east-1"),
        ("us-east-1\n", "Did you mean us-east-1"),
        ("evil.example/", "look like"),
        ("us-east-1.evil.example", "look like"),
        ("us-east-1@evil", "look like"),
        ("x" * 500, "look like"),
        ("us-east-\u0661", "look like"),
    ],
)
async def test_what_is_no_region_never_becomes_a_host(region: str, hint: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        await aws_region(region, environ={})
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 300


def test_the_region_that_came_with_the_credentials() -> None:
    assert region_of({**PAIR, "aws_region": "eu-west-1"}) == "eu-west-1"
    assert region_of(boto3_session()) == "eu-west-1"
    assert region_of(PAIR) is None
    assert region_of(lambda: PAIR) is None


async def test_bearer_keys() -> None:
    assert bedrock_bearer(environ={}) is None
    assert bedrock_bearer(environ={"AWS_BEARER_TOKEN_BEDROCK": " "}) is None
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "from-env\n"}
    from_environment = bedrock_bearer(environ=environ)
    assert from_environment.current().value.reveal() == "from-env"
    environ["AWS_BEARER_TOKEN_BEDROCK"] = "renewed"
    from_environment.invalidate()
    assert from_environment.current().value.reveal() == "renewed"
    assert bedrock_bearer("mine", environ=environ).current().value.reveal() == "mine"
    assert (await bedrock_bearer(lambda: "called", environ={}).get()).value.reveal() == "called"
    with pytest.raises(MissingCredentialsError):
        bedrock_bearer("", environ={})


async def test_credentials_from_files_use_no_http(home, fake: Fake, send) -> None:
    (home / ".aws" / "config").write_text("[default]\naws_access_key_id=C\naws_secret_access_key=CS\n")
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url}

    assert await got(environ=environ, home=home, send=send) == ("C", "CS", None)
    assert fake.seen == []
    assert iso(0)
