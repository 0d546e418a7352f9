"""Container endpoint and instance metadata, against a fake on loopback; botocore is the judge of what they ask."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from credential_fakes import Clock, Fake, iso, no_sleep

from apex_llm.credentials.aws import aws_credentials
from apex_llm.credentials.aws_metadata import container_credentials, instance_credentials
from apex_llm.errors import InvalidEndpointError, MissingCredentialsError

ANSWER = {"Code": "Success", "AccessKeyId": "AKIDROLE", "SecretAccessKey": "role-secret", "Token": "role-token"}


def role(life: float = 21600.0):
    """A well-behaved instance."""

    def answer(seen):
        if seen.path == "/latest/api/token":
            assert seen.method == "PUT"
            assert seen.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
            return "v2-token"
        assert seen.headers["x-aws-ec2-metadata-token"] == "v2-token"
        if seen.path.endswith("/security-credentials/"):
            return "my-role\n"
        assert seen.path.endswith("/security-credentials/my-role")
        return {**ANSWER, "Expiration": iso(life)}

    return answer


async def instance(fake: Fake, send, **environ: str):
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url, **environ}
    return await instance_credentials(send, environ=environ, sleep=no_sleep)


async def test_the_role_of_the_instance_by_version_two(fake: Fake, send) -> None:
    fake.answer = role()

    found = await instance(fake, send)

    assert found.access_key_id == "AKIDROLE"
    assert found.session_token.reveal() == "role-token"
    assert found.expires_at == pytest.approx(time.time() + 21600, abs=3)
    assert "my-role" in found.source
    assert len(fake.seen) == 3


async def test_it_is_what_botocore_finds(fake: Fake, send, monkeypatch: pytest.MonkeyPatch, home) -> None:
    import botocore.session

    fake.answer = role()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", fake.url)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    theirs = botocore.session.get_session().get_credentials().get_frozen_credentials()
    asked_by_botocore = fake.paths[:]
    fake.seen.clear()

    ours = await aws_credentials(send=send, sleep=no_sleep).get()

    assert (ours.access_key_id, ours.secret_access_key.reveal(), ours.session_token.reveal()) == tuple(theirs)[:3]
    assert fake.paths == asked_by_botocore


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
async def test_it_can_be_switched_off(fake: Fake, send, value: str) -> None:
    assert await instance(fake, send, AWS_EC2_METADATA_DISABLED=value) is None
    assert fake.seen == []


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_version_one_is_never_used(fake: Fake, send, status: int) -> None:
    fake.answer = lambda seen: status if seen.method == "PUT" else "my-role"

    with pytest.raises(MissingCredentialsError, match="version 1 is not used"):
        await instance(fake, send)
    assert fake.paths == ["PUT /latest/api/token"]


async def test_a_slow_service_is_given_up_after_three_tries_of_a_second(fake: Fake, send) -> None:
    fake.answer = lambda _: time.sleep(1.5) or "late"
    begun = time.monotonic()

    with pytest.raises(MissingCredentialsError) as caught:
        await instance(fake, send)

    assert 2.5 < time.monotonic() - begun < 10
    assert len(fake.seen) == 3
    assert "hop limit" in caught.value.hint
    assert caught.value.retryable


async def test_trouble_that_passes_is_tried_again(fake: Fake, send) -> None:
    good, bad = role(), [503, (200, "{half"), 500]

    def answer(seen):
        if seen.path.endswith("my-role") and bad:
            return bad.pop(0) if len(bad) > 1 else good(seen)
        return good(seen)

    fake.answer = answer

    assert (await instance(fake, send)).access_key_id == "AKIDROLE"


@pytest.mark.parametrize(
    "content", ["{", "[]", "null", '"x"', "<html>", b"\xff\xfe", '{"AccessKeyId": 5}', '{"AccessKeyId":"A"}', "{}"]
)
async def test_malformed_answers_are_typed_errors_without_their_content(fake: Fake, send, content) -> None:
    good = role()
    fake.answer = lambda seen: (200, content) if seen.path.endswith("my-role") else good(seen)

    with pytest.raises(MissingCredentialsError, match="instance metadata at"):
        await instance(fake, send)


async def test_a_portal_page_is_no_role_name(fake: Fake, send) -> None:
    fake.answer = lambda _: "<html><body>Log in to the hotel</body></html>"

    with pytest.raises(MissingCredentialsError, match="where a name or a token was expected"):
        await instance(fake, send)


async def test_an_instance_without_a_role(fake: Fake, send) -> None:
    fake.answer = lambda seen: "v2-token" if seen.method == "PUT" else 404

    with pytest.raises(MissingCredentialsError, match="no role is attached"):
        await instance(fake, send)
    assert len(fake.seen) == 2


async def test_a_refusal_in_a_good_answer(fake: Fake, send) -> None:
    good = role()
    refusal = {"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}
    fake.answer = lambda seen: refusal if seen.path.endswith("my-role") else good(seen)

    with pytest.raises(MissingCredentialsError, match="AssumeRoleUnauthorizedAccess"):
        await instance(fake, send)


async def test_nobody_there_is_found_out_at_once(send) -> None:
    begun = time.monotonic()
    with pytest.raises(MissingCredentialsError):
        await instance_credentials(
            send, environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}, sleep=no_sleep
        )
    assert time.monotonic() - begun < 2


async def test_only_a_machine_that_once_gave_credentials_is_worth_another_try(fake: Fake, send) -> None:
    environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url}
    source = aws_credentials(send=send, environ=environ, sleep=no_sleep)
    fake.answer = lambda _: 500
    with pytest.raises(MissingCredentialsError) as never:
        await source.get()
    fake.answer = role()
    await source.get()
    source.invalidate()
    fake.answer = lambda _: 500
    with pytest.raises(MissingCredentialsError) as later:
        await source.get()

    assert not never.value.retryable
    assert later.value.retryable


async def test_old_credentials_of_the_machine_serve_until_it_has_newer_ones(
    fake: Fake, send, caplog: pytest.LogCaptureFixture
) -> None:
    """While AWS cannot renew a role, instance metadata hands out the keys that it has, and services take them."""
    fake.answer = role(life=-60)
    clock = Clock(time.time())
    source = aws_credentials(
        send=send, environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url}, sleep=no_sleep, clock=clock
    )

    for _ in range(30):
        assert (await source.get()).access_key_id == "AKIDROLE"

    assert len(fake.seen) <= 6
    assert re.search(r"gave credentials that expired [56]\d s ago", caplog.text)
    fake.answer = role(life=6 * 3600)
    clock.now += 590
    renewed = await source.get()
    assert renewed.expires_at == pytest.approx(time.time() + 6 * 3600, abs=5)


async def test_old_credentials_of_a_container_are_refused(fake: Fake, send) -> None:
    fake.answer = lambda _: {**ANSWER, "Expiration": iso(-60)}
    source = aws_credentials(send=send, environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url}, sleep=no_sleep)

    with pytest.raises(MissingCredentialsError, match=r"expired \d+ s ago"):
        await source.get()


@pytest.mark.parametrize("token", [{}, {"Token": ""}, {"Token": None}])
async def test_an_agent_may_hand_out_keys_without_a_session(fake: Fake, send, token: dict[str, Any]) -> None:
    """AWS's own agents never do; local ones, which serve somebody's lasting keys, do."""
    fake.answer = lambda _: {key: value for key, value in ANSWER.items() if key != "Token"} | token

    found = await container_credentials(send, environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url}, sleep=no_sleep)

    assert found.session_token is None


@pytest.mark.parametrize("life", [12 * 60, 5 * 60])
async def test_credentials_near_their_end_are_used_and_not_fetched_for_every_call(
    fake: Fake, send, life: float
) -> None:
    fake.answer = role(life=life)
    source = aws_credentials(send=send, environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url}, sleep=no_sleep)

    for _ in range(30):
        assert (await source.get()).access_key_id == "AKIDROLE"

    assert len(fake.seen) <= 6


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/", "http://evil.example/", "http://169.254.169.253/", "http://a@127.0.0.1/", "ftp://127.0.0.1"],
)
async def test_instance_metadata_is_asked_of_nobody_else(send, url: str) -> None:
    with pytest.raises(InvalidEndpointError):
        await instance_credentials(send, environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": url})


async def test_the_container_endpoint(fake: Fake, send, tmp_path) -> None:
    fake.answer = lambda _: {**ANSWER, "Expiration": iso(3600), "AccountId": "111122223333"}
    token = tmp_path / "token"
    token.write_text("from-file")
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{fake.url}/creds?id=1",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "from-variable",
    }

    found = await container_credentials(send, environ=environ, sleep=no_sleep)

    assert found.session_token.reveal() == "role-token"
    assert found.expires_at == pytest.approx(time.time() + 3600, abs=3)
    assert fake.paths == ["GET /creds?id=1"]
    assert fake.seen[0].headers["authorization"] == "from-file"
    token.write_text("rotated")
    await container_credentials(send, environ=environ, sleep=no_sleep)
    assert fake.seen[1].headers["authorization"] == "rotated"


async def test_the_container_endpoint_goes_before_the_machine_and_failing_is_final(fake: Fake, send) -> None:
    """The machine's role is another principal: falling back to it would be a surprise."""
    fake.answer = lambda seen: 500 if seen.path == "/creds" else role()(seen)
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{fake.url}/creds",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": fake.url,
    }

    with pytest.raises(MissingCredentialsError, match="status 500"):
        await aws_credentials(send=send, environ=environ, sleep=no_sleep).get()
    assert fake.paths == ["GET /creds"] * 3


@pytest.mark.parametrize("value", ["a\nb", "a\r\nx: y", "ä"])
async def test_an_authorization_token_that_is_no_header_is_refused(fake: Fake, send, value: str) -> None:
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": fake.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": value}

    with pytest.raises(MissingCredentialsError, match="AWS_CONTAINER_AUTHORIZATION_TOKEN holds"):
        await container_credentials(send, environ=environ)
    assert fake.seen == []


@pytest.mark.parametrize(
    "url", ["http://evil.example/x", "http://169.254.169.254/x", "http://10.1.2.3/", "nonsense", "//x"]
)
async def test_container_tokens_go_to_nobody_else_over_http(send, url: str) -> None:
    with pytest.raises(InvalidEndpointError):
        await container_credentials(send, environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})


async def test_a_relative_uri_cannot_change_the_host(send) -> None:
    for value in ("@evil.example/", ".evil.example/", "creds"):
        with pytest.raises(InvalidEndpointError):
            await container_credentials(send, environ={"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": value})


async def test_redirects_are_not_followed(fake: Fake, send) -> None:
    fake.answer = lambda seen: (302, "", {"location": f"{fake.url}/elsewhere"}) if seen.path == "/creds" else ANSWER

    with pytest.raises(MissingCredentialsError, match="status 302"):
        await container_credentials(send, environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{fake.url}/creds"})
    assert len(fake.seen) == 1
