"""Canaries: no secret in a log at DEBUG, in a repr, or in the text of an error."""

from __future__ import annotations

import logging
import os
import traceback

import pytest
from credential_fakes import Fake, iso, no_sleep

from apex_llm.credentials.aws import aws_credentials, bedrock_bearer
from apex_llm.credentials.aws_explicit import explicit_aws_credentials
from apex_llm.credentials.aws_files import read_profile
from apex_llm.credentials.azure import azure_credentials
from apex_llm.credentials.azure_entra import ClientSecret, WorkloadIdentity
from apex_llm.credentials.azure_managed import ManagedIdentity
from apex_llm.credentials.manager import credentials_from_manager
from apex_llm.errors import ApexLlmError

CANARY = "canary-7f3a"
XML = (
    '<AssumeRole{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRole{0}Result><Credentials>'
    "<AccessKeyId>AKID</AccessKeyId><SecretAccessKey>{1}</SecretAccessKey><SessionToken>{1}</SessionToken>"
    "<Expiration>{2}</Expiration></Credentials></AssumeRole{0}Result></AssumeRole{0}Response>"
)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    yield caplog
    said = "".join(logging.Formatter().format(record) for record in caplog.get_records("call"))
    assert CANARY not in said


class Manager:
    def get_api_key(self, service):
        return {"aws_access_key_id": "AKID", "aws_secret_access_key": CANARY, "api_key": CANARY}


async def test_nothing_shows_a_secret_when_all_is_well(fake: Fake, send, logs, home, tmp_path, monkeypatch) -> None:
    imds = {
        "Code": "Success",
        "AccessKeyId": "AKID",
        "SecretAccessKey": CANARY,
        "Token": CANARY,
        "Expiration": iso(21600),
    }

    def answer(seen):
        if seen.method == "POST" and b"AssumeRole" in seen.body:
            web = "WithWebIdentity" if b"WithWebIdentity" in seen.body else ""
            return 200, XML.format(web, CANARY, iso(3600)), {"content-type": "text/xml"}
        if seen.method == "POST" or "identity" in seen.path:
            return {"access_token": CANARY, "expires_in": 3600, "token_type": "Bearer"}
        if seen.path == "/latest/api/token":
            return CANARY
        return "role" if seen.path.endswith("security-credentials/") else imds

    fake.answer = answer
    jwt = tmp_path / "jwt"
    jwt.write_text(CANARY)
    (home / ".aws" / "credentials").write_text(f"[default]\naws_access_key_id=A\naws_secret_access_key={CANARY}\n")
    (home / ".aws" / "config").write_text("[profile r]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=default\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fake.url)
    web = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(jwt),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
        "HOME": str(home),
    }
    for name, value in web.items():
        monkeypatch.setenv(name, value)
    pair = {"aws_access_key_id": "A", "aws_secret_access_key": CANARY}
    manager = credentials_from_manager(Manager(), "x")
    pod = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url, "AZURE_AUTHORITY_HOST": fake.url}
    entra = [ClientSecret("t", "c", CANARY), WorkloadIdentity("t", "c", jwt), ManagedIdentity()]
    sources = [
        explicit_aws_credentials(pair),
        explicit_aws_credentials(lambda: pair),
        aws_credentials(environ={"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": CANARY}),
        aws_credentials(environ={}, home=home),
        aws_credentials(environ={}, home=home, profile="r"),
        aws_credentials(environ=dict(os.environ), home=home),
        aws_credentials(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url}, home=tmp_path, send=send),
        aws_credentials(environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url}, home=tmp_path, send=send),
        bedrock_bearer(CANARY),
        azure_credentials(api_key=CANARY).source,
        azure_credentials(azure_ad_token_provider=lambda: CANARY).source,
        manager.aws(),
        manager.azure(),
        *(azure_credentials(credential=one, environ=pod, send=send).source for one in entra),
    ]
    shown = [repr(entra), repr(manager), repr(read_profile(None, environ={}, home=home))]
    for source in sources:
        value = await source.get()
        shown += [repr(source), str(source), repr(value), str(value)]

    assert CANARY not in "".join(shown)
    assert len(fake.seen) >= 9


@pytest.mark.parametrize(
    "body", [f'{{"x": "{CANARY}"', f'"{CANARY}"', f'{{"AccessKeyId": 1, "a": "{CANARY}"}}', CANARY]
)
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_no_error_quotes_an_answer(fake: Fake, send, logs, tmp_path, body: str, status: int) -> None:
    fake.answer = lambda seen: (200, "token") if seen.method == "PUT" else (status, body)
    pod = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": fake.url, "AZURE_AUTHORITY_HOST": fake.url}
    base = {"home": tmp_path, "send": send, "sleep": no_sleep}
    sources = [
        aws_credentials(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url}, **base),
        azure_credentials(credential=ClientSecret("t", "c", "s"), environ=pod, send=send, sleep=no_sleep).source,
        azure_credentials(credential=ManagedIdentity(), environ=pod, send=send, sleep=no_sleep).source,
    ]
    for source in sources:
        with pytest.raises(ApexLlmError) as caught:
            await source.get()
        assert CANARY not in "".join(traceback.format_exception(caught.value))


async def test_a_callback_that_puts_a_secret_into_its_error(logs) -> None:
    def callback():
        raise RuntimeError(CANARY)

    for source in (
        aws_credentials(credentials=callback),
        azure_credentials(azure_ad_token_provider=callback).source,
        bedrock_bearer(callback),
    ):
        with pytest.raises(ApexLlmError) as caught:
            await source.get()
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(caught.value)
