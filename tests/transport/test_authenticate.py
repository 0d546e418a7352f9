"""Credentials onto requests, for one origin only; botocore is the oracle for signatures."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from transport_doubles import ORIGIN, FakeResponse, Script, failure, now, request_for, run_virtually

from apex_llm.errors import (
    AuthenticationError,
    InvalidEndpointError,
    MissingCredentialsError,
    PermissionDeniedError,
    RequestTimeoutError,
)
from apex_llm.transport.authenticate import (
    BearerAuthentication,
    HeaderKeyAuthentication,
    SigV4Authentication,
    aws_attempt_headers,
    azure_attempt_headers,
    new_invocation_id,
)
from apex_llm.transport.classify import ClassifyLayer
from apex_llm.transport.pipeline import compose
from apex_llm.transport.retry import RetryPolicy, run_attempts
from apex_llm.types.http import Origin
from apex_llm.types.secrets import AccessToken, AwsCredentials, Secret

MOMENT = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NOW = MOMENT.timestamp()
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


def key_pair(name: str = "AKIDEXAMPLE", token: str | None = None) -> AwsCredentials:
    return AwsCredentials(
        access_key_id=name,
        secret_access_key=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token=None if token is None else Secret(token),
    )


class Source:
    """Hands out values in order; the last one for ever."""

    def __init__(self, *values, fresh: bool = True, delay: float = 0.0) -> None:
        self.values = list(values)
        self.fresh = fresh
        self.delay = delay
        self.gets = self.invalidations = 0

    def current(self):
        return self.values[0] if self.fresh else None

    async def get(self):
        self.gets += 1
        await asyncio.sleep(self.delay)
        self.fresh = True
        if isinstance(self.values[0], BaseException):
            raise self.values[0]
        return self.values[0]

    def invalidate(self):
        self.invalidations += 1
        self.fresh = False
        if len(self.values) > 1:
            self.values.pop(0)


def sigv4(source, **options) -> SigV4Authentication:
    return SigV4Authentication(source, origin=ORIGIN, region="us-east-1", **{"clock": lambda: NOW} | options)


def bearer(text: str) -> AccessToken:
    return AccessToken(value=Secret(text))


async def sent_by(layer, **changes) -> dict[str, str]:
    send = Script(FakeResponse())
    await compose([layer], send)(request_for(**changes))
    headers = send.requests[0].headers
    assert len(dict(headers)) == len(headers)
    return dict(headers)


class TestSignatures:
    @pytest.mark.parametrize("token", [None, "FwoGZXIvYXdzEXAMPLE//token=="])
    @pytest.mark.parametrize(
        "target",
        [
            "/model/anthropic.claude-sonnet-4-6/converse",
            "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke",
            "/model/arn:aws:bedrock:us-east-1:123456789012:application-inference-profile%2Fa1b2c3/converse-stream",
            "/foundation-models?byProvider=anthropic&byOutputModality=TEXT",
        ],
    )
    async def test_they_are_botocores(self, monkeypatch, token, target):
        headers = (("content-type", "application/json"), ("x-amzn-bedrock-trace", "ENABLED"))
        theirs = AWSRequest("POST", f"{ORIGIN.url}{target}", dict(headers), b'{"messages":[]}')
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: MOMENT.replace(tzinfo=None))
        botocore.auth.SigV4Auth(
            Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token), "bedrock", "us-east-1"
        ).add_auth(theirs)

        ours = await sent_by(
            sigv4(Source(key_pair(token=token))),
            target=target,
            headers=(*headers, ("user-agent", "apex-llm/0"), ("accept-encoding", "identity")),
        )

        assert ours["authorization"] == theirs.headers["Authorization"]
        assert ours["x-amz-date"] == theirs.headers["X-Amz-Date"]
        assert ours.get("x-amz-security-token") == theirs.headers.get("X-Amz-Security-Token")

    async def test_what_proxies_touch_and_what_counts_attempts_is_not_signed(self):
        ours = await sent_by(
            sigv4(Source(key_pair())), headers=(("user-agent", "x"), ("content-type", "application/json")), attempt=2
        )

        assert "SignedHeaders=content-type;host;x-amz-date," in ours["authorization"]
        assert ours["amz-sdk-invocation-id"] == "11111111-2222-4333-8444-555555555555"
        assert ours["amz-sdk-request"] == "attempt=2; max=3"

    async def test_each_attempt_is_signed_at_its_own_moment(self):
        times = iter([NOW, NOW + 2])
        layer = sigv4(Source(key_pair()), clock=lambda: next(times))

        first, second = await sent_by(layer), await sent_by(layer)

        assert (first["x-amz-date"], second["x-amz-date"]) == ("20261122T120000Z", "20261122T120002Z")
        assert first["authorization"] != second["authorization"]

    async def test_a_signer_is_kept_for_credentials_that_come_as_new_objects(self):
        source = Source(key_pair("ONE"))
        layer = sigv4(source)

        for name in ("ONE", "TWO", "ONE", "THREE", "FOUR", "FIVE", "ONE"):
            source.values = [key_pair(name)]
            assert f"Credential={name}/" in (await sent_by(layer))["authorization"]

        assert len(layer._signers) == 4

    async def test_headers_of_the_callers_own_do_not_double_ours(self):
        """Two Authorization headers are a way to smuggle; our layer owns the name."""
        ours = await sent_by(sigv4(Source(key_pair())), headers=(("authorization", "Basic x"), ("x-amz-date", "then")))

        assert ours["authorization"].startswith("AWS4-HMAC-SHA256 ")
        assert ours["x-amz-date"] == "20261122T120000Z"


class TestTokens:
    async def test_a_bearer_token_goes_into_authorization(self):
        layer = BearerAuthentication(Source(bearer("hush")), origin=ORIGIN, attempt_headers=azure_attempt_headers)

        ours = await sent_by(layer, headers=(("api-key", "stray"),))

        assert ours == {
            "authorization": "Bearer hush",
            "x-ms-client-request-id": "11111111-2222-4333-8444-555555555555",
        }

    async def test_a_key_goes_into_its_own_header(self):
        layer = HeaderKeyAuthentication(Source(bearer("hush")), origin=ORIGIN)

        assert (await sent_by(layer, headers=()))["api-key"] == "hush"

    async def test_without_an_invocation_id_none_is_invented(self):
        assert azure_attempt_headers(request_for(invocation_id="")) == ()
        assert aws_attempt_headers(request_for(invocation_id="")) == (("amz-sdk-request", "attempt=1; max=3"),)


LAYERS = [
    lambda source, **options: SigV4Authentication(source, origin=ORIGIN, region="us-east-1", **options),
    lambda source: BearerAuthentication(source, origin=ORIGIN),
    lambda source: HeaderKeyAuthentication(source, origin=ORIGIN),
]


class TestOrigin:
    @pytest.mark.parametrize("make", LAYERS)
    @pytest.mark.parametrize(
        "other",
        [
            Origin("http", ORIGIN.host, 443),
            Origin("https", "evil.example", 443),
            Origin("https", ORIGIN.host, 8443),
            Origin("https", f"{ORIGIN.host}.evil.example", 443),
        ],
    )
    async def test_credentials_go_to_their_own_origin_only(self, make, other):
        send = Script(FakeResponse())

        with pytest.raises(InvalidEndpointError, match="are not sent to"):
            await compose([make(Source(bearer("hush")))], send)(request_for(origin=other))

        assert send.requests == []

    async def test_an_equal_origin_is_the_same(self):
        layer = BearerAuthentication(Source(bearer("hush")), origin=ORIGIN)

        assert (await sent_by(layer, origin=Origin("https", ORIGIN.host, 443)))["authorization"]


class TestSlowSources:
    def test_stale_credentials_are_awaited(self):
        source = Source(key_pair(), fresh=False, delay=3)

        async def main():
            ours = await sent_by(sigv4(source))
            assert ours["authorization"]
            assert now() == 3

        run_virtually(main())
        assert source.gets == 1

    def test_a_source_that_hangs_is_left_at_the_deadline(self):
        async def main():
            with pytest.raises(RequestTimeoutError) as caught:
                await sent_by(sigv4(Source(key_pair(), fresh=False, delay=3600)), deadline=now() + 5)
            assert caught.value.phase == "credentials"
            assert now() == pytest.approx(5)

        run_virtually(main())

    async def test_a_foreign_exception_does_not_leave(self):
        error = ValueError("hush")
        with pytest.raises(MissingCredentialsError) as caught:
            await sent_by(sigv4(Source(error, fresh=False)))

        assert caught.value.__cause__ is error
        assert "hush" not in str(caught.value)

    async def test_a_timeout_of_the_sources_own_is_not_taken_for_ours(self):
        with pytest.raises(MissingCredentialsError):
            await sent_by(sigv4(Source(TimeoutError(), fresh=False)))

    async def test_an_error_of_ours_passes(self):
        error = MissingCredentialsError("tried: environment, profile")
        with pytest.raises(MissingCredentialsError) as caught:
            await sent_by(sigv4(Source(error, fresh=False)))

        assert caught.value is error

    async def test_current_may_fail_too(self):
        class Broken(Source):
            def current(self):
                raise KeyError("hush")

        with pytest.raises(MissingCredentialsError):
            await sent_by(sigv4(Broken(key_pair())))


def refusal(code: str, status: int = 403, **headers: str) -> FakeResponse:
    return FakeResponse(status, {"x-amzn-errortype": code, "date": DATE} | headers)


async def call(layer, send, **facts):
    pipeline = compose([ClassifyLayer(failure), layer], send)

    async def attempt(number: int):
        return await pipeline(request_for(attempt=number))

    return await run_attempts(attempt, policy=RetryPolicy(), recover=layer.recover, **facts)


class TestRecovery:
    @pytest.mark.parametrize("code", ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"])
    async def test_expired_credentials_are_renewed_and_the_call_repeated_once(self, code):
        source = Source(key_pair("OLD", "old"), key_pair("NEW", "new"))
        send = Script(refusal(code), FakeResponse(200))

        response = await call(sigv4(source), send)

        assert response.status == 200
        old, new = (dict(request.headers)["authorization"] for request in send.requests)
        assert "Credential=OLD/" in old
        assert "Credential=NEW/" in new
        assert source.invalidations == 1

    async def test_a_wrong_key_that_cannot_be_renewed_is_sent_once(self):
        send = Script(refusal("UnrecognizedClientException"))

        with pytest.raises(PermissionDeniedError) as caught:
            await call(sigv4(Source(key_pair())), send)

        assert len(send.requests) == caught.value.attempts == 1

    async def test_a_permission_that_is_missing_renews_nothing(self):
        source = Source(key_pair("OLD"), key_pair("NEW"))
        send = Script(refusal("AccessDeniedException"))

        with pytest.raises(PermissionDeniedError):
            await call(sigv4(source), send)

        assert len(send.requests) == 1
        assert source.invalidations == 0

    async def test_a_renewal_that_fails_leaves_the_refusal_as_the_error(self, caplog):
        source = Source(key_pair("OLD"), ValueError("hush"))

        with pytest.raises(PermissionDeniedError) as caught:
            await call(sigv4(source), Script(refusal("ExpiredTokenException")))

        assert caught.value.__notes__ == ["Renewing the credentials failed as well: ValueError."]
        assert "hush" not in caplog.text

    def test_a_hundred_calls_that_fail_together_or_late_renew_once(self):
        """Late ones were signed with the old credentials too; what the first fetched must survive them."""
        source = Source(key_pair("OLD"), key_pair("NEW"), key_pair("NEVER"), delay=1)
        layer = sigv4(source)

        async def send(request):
            await asyncio.sleep(0.05 * (len(sent) % 50))
            sent.append(request)
            new = "Credential=NEW/" in dict(request.headers)["authorization"]
            return FakeResponse(200) if new else refusal("ExpiredTokenException")

        sent = []

        async def main():
            return await asyncio.gather(*(call(layer, send) for _ in range(100)))

        responses = run_virtually(main())

        assert [response.status for response in responses] == [200] * 100
        assert source.invalidations == 1

    async def test_a_refused_entra_token_is_renewed(self):
        source = Source(bearer("old"), bearer("new"))
        layer = BearerAuthentication(source, origin=ORIGIN)
        send = Script(FakeResponse(401), FakeResponse(200))

        assert (await call(layer, send)).status == 200
        assert dict(send.requests[1].headers)["authorization"] == "Bearer new"

    async def test_a_refused_static_key_is_not_sent_again(self):
        send = Script(FakeResponse(401))

        with pytest.raises(AuthenticationError):
            await call(HeaderKeyAuthentication(Source(bearer("wrong")), origin=ORIGIN), send)

        assert len(send.requests) == 1


class TestClock:
    @pytest.mark.parametrize(
        "code", ["InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired"]
    )
    @pytest.mark.parametrize("error", [-600, 600])
    async def test_a_clock_that_is_wrong_is_learned_from_the_date_header(self, caplog, code, error):
        layer = sigv4(Source(key_pair()), clock=lambda: NOW + error)
        send = Script(refusal(code), FakeResponse(200))

        assert (await call(layer, send)).status == 200
        assert dict(send.requests[1].headers)["x-amz-date"] == "20261122T120000Z"
        assert f"the local clock is {error:+d} s off" in caplog.text

        caplog.clear()
        assert (await call(layer, send)).status == 200
        assert dict(send.requests[2].headers)["x-amz-date"] == "20261122T120000Z"
        assert caplog.records == []

    @pytest.mark.parametrize("error", [-59, 0, 59])
    async def test_a_wrong_signature_with_a_right_clock_is_not_repeated(self, error):
        send = Script(refusal("InvalidSignatureException"))

        with pytest.raises(PermissionDeniedError):
            await call(sigv4(Source(key_pair()), clock=lambda: NOW + error), send)

        assert len(send.requests) == 1

    async def test_without_a_date_nothing_is_learned(self):
        send = Script(FakeResponse(403, {"x-amzn-errortype": "InvalidSignatureException"}))

        with pytest.raises(PermissionDeniedError):
            await call(sigv4(Source(key_pair()), clock=lambda: NOW + 600), send)

        assert len(send.requests) == 1

    def test_calls_under_way_while_the_clock_is_learned_are_repeated_too(self, caplog):
        layer = sigv4(Source(key_pair()), clock=lambda: NOW + 600)
        sent = []

        async def send(request):
            sent.append(request)
            await asyncio.sleep(0.1 * len(sent))
            right = dict(request.headers)["x-amz-date"] == "20261122T120000Z"
            return FakeResponse(200) if right else refusal("InvalidSignatureException")

        async def main():
            return await asyncio.gather(*(call(layer, send) for _ in range(10)))

        assert [response.status for response in run_virtually(main())] == [200] * 10
        assert len(caplog.records) == 1

    async def test_a_clock_that_is_set_right_later_is_learned_again(self, caplog):
        caplog.set_level(logging.WARNING)
        clock = [NOW + 600]
        layer = sigv4(Source(key_pair()), clock=lambda: clock[0])
        await call(layer, Script(refusal("InvalidSignatureException"), FakeResponse(200)))

        clock[0] = NOW
        send = Script(refusal("InvalidSignatureException"), FakeResponse(200))
        assert (await call(layer, send)).status == 200

        first, second = (dict(request.headers)["x-amz-date"] for request in send.requests)
        assert (first, second) == ("20261122T115000Z", "20261122T120000Z")


def test_invocation_ids_are_random_version_4_uuids():
    ids = {new_invocation_id() for _ in range(1000)}

    assert len(ids) == 1000
    for text in ids:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
