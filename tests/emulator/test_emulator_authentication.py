"""Who may pass, and what the others are told."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from plain_wire import Wire

from apex_llm.emulator import Emulator

TARGET = "/model/amazon.nova-micro-v1%3A0/converse"
BODY = b'{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}'


def refused(answer: Any) -> tuple[int, str]:
    return answer.status, answer.headers["x-amzn-errortype"].partition(":")[0]


def test_a_right_signature_passes(wire: Wire) -> None:
    assert wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY), BODY).status == 200


def test_a_raw_colon_may_be_sent_if_it_was_signed_as_sent(wire: Wire) -> None:
    target = "/model/amazon.nova-micro-v1:0/converse"

    assert wire.send("POST", target, wire.signed("POST", target, BODY), BODY).status == 200


def test_no_authorization_is_a_missing_token(wire: Wire) -> None:
    answer = wire.send("POST", TARGET, [("host", wire.host)], BODY)

    assert refused(answer) == (403, "MissingAuthenticationTokenException")
    assert answer.headers["x-amzn-errortype"].endswith(":http://internal.amazon.com/coral/com.amazon.bedrock/")
    assert answer.headers["x-amzn-requestid"]


def test_another_body_than_the_signed_one_is_refused(wire: Wire) -> None:
    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY), BODY.replace(b"Hi", b"Ho"))

    assert refused(answer) == (403, "InvalidSignatureException")


def test_another_path_than_the_signed_one_is_refused(wire: Wire) -> None:
    headers = wire.signed("POST", TARGET, BODY)

    answer = wire.send("POST", TARGET.replace("micro", "lite"), headers, BODY)

    assert refused(answer) == (403, "InvalidSignatureException")


def test_an_added_query_is_refused(wire: Wire) -> None:
    answer = wire.send("GET", "/inference-profiles?maxResults=3", wire.signed("GET", "/inference-profiles"))

    assert refused(answer) == (403, "InvalidSignatureException")


@pytest.mark.parametrize("name", ["x-amz-date", "Authorization", "Host"])
def test_a_repeated_security_header_is_refused(wire: Wire, name: str) -> None:
    headers = wire.signed("POST", TARGET, BODY)
    value = next(value for found, value in headers if found.lower() == name.lower())

    answer = wire.send("POST", TARGET, [*headers, (name, value)], BODY)

    assert answer.status in {400, 403}


def test_an_unsigned_bedrock_header_is_refused(wire: Wire) -> None:
    """Whoever could add one on the way could switch a guardrail."""
    headers = [*wire.signed("POST", TARGET, BODY), ("x-amzn-bedrock-guardrailidentifier", "other")]

    answer = wire.send("POST", TARGET, headers, BODY)

    assert refused(answer) == (403, "InvalidSignatureException")
    assert "x-amzn-bedrock-guardrailidentifier" in answer.json["message"]


@pytest.mark.parametrize(("shift", "word"), [(-301, "not yet current"), (301, "expired")])
def test_a_clock_more_than_five_minutes_off_is_refused(shift: int, word: str) -> None:
    with Emulator(clock=lambda: time.time() + shift) as emulator:
        wire = Wire(emulator)
        answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY), BODY)

    assert refused(answer) == (403, "InvalidSignatureException")
    assert word in answer.json["message"]
    told = parsedate_to_datetime(answer.headers["date"]).timestamp()
    assert abs(told - time.time() - shift) < 5  # a client may learn how far off it is


def test_the_wrong_service_is_told(wire: Wire) -> None:
    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY, service="bedrock-runtime"), BODY)

    assert refused(answer) == (403, "InvalidSignatureException")
    assert "bedrock-runtime" in answer.json["message"]


def test_the_wrong_region_is_told(wire: Wire) -> None:
    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY, region="eu-west-1"), BODY)

    assert refused(answer) == (403, "InvalidSignatureException")
    assert "us-east-1" in answer.json["message"]


@pytest.mark.parametrize(
    ("path", "words"),
    [(TARGET, "once more"), (TARGET.replace("%3A", ":"), "raw ':'")],
)
def test_the_classic_mistakes_with_the_path_are_recognised(wire: Wire, path: str, words: str) -> None:
    def adapt(auth: SigV4Auth) -> None:
        auth._normalize_url_path = lambda _: path  # type: ignore[method-assign]

    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY, adapt=adapt), BODY)

    assert refused(answer) == (403, "InvalidSignatureException")
    assert words in answer.json["message"]


def test_no_secret_gets_into_a_message_or_a_repr(wire: Wire) -> None:
    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY, secret="wrong"), BODY)
    shown = repr(wire.emulator.requests[-1]) + repr(wire.emulator)

    assert wire.emulator.secret_access_key not in answer.body.decode() + shown
    assert "AWS4-HMAC" not in shown


def test_a_bearer_key_passes_and_a_wrong_one_does_not(wire: Wire) -> None:
    right = [("host", wire.host), ("authorization", f"Bearer {wire.emulator.bearer_token}")]
    wrong = [("host", wire.host), ("authorization", "Bearer ABSKwrong")]

    assert wire.send("POST", TARGET, right, BODY).status == 200
    answer = wire.send("POST", TARGET, wrong, BODY)
    assert answer.status == 403
    assert answer.json == {"Message": "Authentication failed: Please make sure your API Key is valid."}


@pytest.mark.parametrize(
    "value",
    ["", "Basic abc", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=zz"],
)
def test_a_malformed_authorization_is_incomplete(wire: Wire, value: str) -> None:
    answer = wire.send("POST", TARGET, [("host", wire.host), ("authorization", value)], BODY)

    assert refused(answer)[1] == "IncompleteSignatureException"


def test_azure_takes_key_and_token_and_refuses_others(wire: Wire) -> None:
    host = ("host", wire.host)

    assert wire.chat(headers=[host, ("api-key", wire.emulator.api_key)]).status == 200
    assert wire.chat(headers=[host, ("authorization", f"Bearer {wire.emulator.bearer_token}")]).status == 200
    assert wire.chat(headers=[host, ("authorization", f"Bearer {wire.emulator.api_key}")]).status == 401
    assert wire.chat(headers=[host]).json["error"]["code"] == "401"


def test_a_refused_request_uses_up_no_answer(wire: Wire) -> None:
    wire.emulator.script("scripted")

    wire.send("POST", TARGET, [("host", wire.host)], BODY)
    answer = wire.send("POST", TARGET, wire.signed("POST", TARGET, BODY), BODY)

    assert answer.json["output"]["message"]["content"] == [{"text": "scripted"}]
    assert [request.status for request in wire.emulator.requests] == [403, 200]
