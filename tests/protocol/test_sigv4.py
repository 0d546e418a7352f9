"""Signature Version 4: the vectors that botocore made, botocore itself as oracle, and the verifying end."""

from __future__ import annotations

import base64
import threading
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_helpers import load_vectors

from apex_llm.errors import AuthenticationError, ConfigurationError, InvalidRequestError
from apex_llm.protocol.sigv4 import (
    EMPTY_SHA256,
    SigV4Signer,
    canonical_query,
    canonical_request,
    canonical_uri,
    encode_path_segment,
    signing_key,
    string_to_sign,
)
from apex_llm.protocol.sigv4_presign import presign_query
from apex_llm.protocol.sigv4_verify import (
    ParsedAuthorization,
    expected_signature,
    parse_authorization,
    recognise_mistake,
)

FILE = load_vectors("sigv4")
VECTORS: dict[str, dict[str, Any]] = {vector["name"]: vector for vector in FILE["vectors"]}
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2026, 1, 15, 12, 34, 56, tzinfo=UTC)


class Call:
    """A vector's input, in the words of the signer."""

    def __init__(self, vector: dict[str, Any]) -> None:
        given = vector["input"]
        url = urlsplit(given["url"])
        default = {"https": 443, "http": 80}[url.scheme]
        assert url.hostname is not None
        self.authority = url.hostname if url.port in {None, default} else f"{url.hostname}:{url.port}"
        self.method: str = given["method"]
        self.target = url.path + (f"?{url.query}" if url.query else "")
        self.headers = [(name.lower(), value) for name, value in given["headers"].items()]
        self.body = base64.b64decode(given["body_base64"])
        self.amz_date: str = given["timestamp"]
        self.timestamp = datetime.strptime(given["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        self.secret: str = given["secret_key"]
        self.signer = SigV4Signer(
            access_key_id=given["access_key"],
            secret_access_key=given["secret_key"],
            session_token=given["session_token"],
            region=given["region"],
            service=given["service"],
        )

    def sign(self, **changes: Any) -> tuple[tuple[str, str], ...]:
        arguments: dict[str, Any] = {
            "method": self.method,
            "target": self.target,
            "authority": self.authority,
            "headers": self.headers,
            "body": self.body,
            "timestamp": self.timestamp,
        }
        return self.signer.sign(**arguments | changes)

    def received(self, added: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        """The request as a server sees it."""
        headers = [("host", self.authority), *self.headers, *added]
        return {"method": self.method, "target": self.target, "headers": headers, "body": self.body}


def call(name: str = "converse-colon-model-id") -> Call:
    return Call(VECTORS[name])


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_signed_step_by_step_as_botocore_signed_it(name: str) -> None:
    given, expected = call(name), VECTORS[name]["expected"]
    path, _, query = given.target.partition("?")

    added = given.sign(every_header=True)

    assert dict(added) == {key.lower(): value for key, value in expected["added_headers"].items()}
    assert canonical_uri(path) == expected["canonical_uri"]
    assert canonical_query(query) == expected["canonical_query"]
    assert sha256(given.body).hexdigest() == expected["payload_sha256"]
    names = expected["signed_headers"].split(";")
    request = canonical_request(
        method=given.method,
        target=given.target,
        headers=[header for header in given.received(added)["headers"] if header[0] in names],
        payload_sha256=expected["payload_sha256"],
    )
    assert request == expected["canonical_request"]
    date, region, service = given.amz_date[:8], given.signer.region, given.signer.service
    scope = f"{date}/{region}/{service}/aws4_request"
    assert string_to_sign(amz_date=given.amz_date, scope=scope, request=request) == expected["string_to_sign"]
    key = signing_key(given.secret, date=date, region=region, service=service)
    assert key.hex() == expected["signing_key_hex"]


@pytest.mark.parametrize("name", VECTORS)
def test_the_receiving_end_computes_the_same_signature(name: str) -> None:
    given = call(name)
    for every_header in (True, False):
        added = given.sign(every_header=every_header)
        authorization = parse_authorization(dict(added)["authorization"])

        signature = expected_signature(authorization, secret_access_key=given.secret, **given.received(added))

        assert signature == authorization.signature


def test_the_default_signs_what_matters_and_nothing_that_proxies_touch() -> None:
    headers = [
        *(("accept", "*/*"), ("accept-encoding", "identity"), ("content-type", "application/json")),
        *(("user-agent", "apex"), ("x-amzn-trace-id", "Root=1"), ("amz-sdk-request", "attempt=1"), ("x-mine", "1")),
        *(("x-amzn-bedrock-trace", "ENABLED"), ("x-amzn-bedrock-guardrailidentifier", "g"), ("x-amz-target", "t")),
    ]
    plain, with_token = call(), call("converse-session-token")

    signed = [parse_authorization(dict(each.sign(headers=headers))["authorization"]) for each in (plain, with_token)]

    bedrock = ("x-amzn-bedrock-guardrailidentifier", "x-amzn-bedrock-trace")
    assert signed[0].signed_headers == ("content-type", "host", "x-amz-date", "x-amz-target", *bedrock)
    assert signed[1].signed_headers == (
        *("content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"),
        *bedrock,
    )


@pytest.mark.parametrize("name", ["converse-colon-model-id", "converse-session-token"])
@pytest.mark.parametrize("content_type", ["application/json", " application/json ;\tcharset=utf-8 "])
def test_the_short_way_for_plain_requests_gives_what_the_long_way_gives(name: str, content_type: str) -> None:
    """botocore's way never takes the short cut, so signing the same headers by it is the check."""
    given = call(name)

    short = given.sign(headers=[("content-type", content_type), ("user-agent", "x")])

    assert short == given.sign(headers=[("x-amzn-trace-id", "y"), ("content-type", content_type)], every_header=True)


def test_headers_that_signing_adds_are_not_taken_from_the_request() -> None:
    """A retry is signed anew; what the first attempt left must not count."""
    given = call("converse-session-token")
    stale = [
        ("x-amz-date", "20200101T000000Z"),
        ("x-amz-security-token", "old"),
        ("authorization", "old"),
        ("host", "x"),
    ]

    assert given.sign(headers=[*given.headers, *stale]) == given.sign()


def test_a_known_payload_hash_is_taken_instead_of_the_body() -> None:
    given = call()

    assert given.sign(body=b"", payload_sha256=sha256(given.body).hexdigest()) == given.sign()
    assert given.sign(body=b"") == given.sign(payload_sha256=EMPTY_SHA256)


def test_a_time_may_be_seconds_or_a_datetime_in_any_zone() -> None:
    given = call()

    forms = [
        NOW.timestamp(),
        NOW.timestamp() + 0.999,
        NOW.replace(tzinfo=None),
        NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
    ]

    assert {given.sign(timestamp=form) for form in forms} == {given.sign()}
    assert presign({"timestamp": NOW.timestamp()}) == presign({"timestamp": forms[3]}) == presign({})


def test_one_signer_follows_the_days_back_and_forth() -> None:
    """The key is kept per day; a stale one would be refused until the process ends."""
    moments = [NOW + timedelta(days=days, seconds=days) for days in (0, 1, 0, -1, 400, 0)]
    signer = call()

    together = [signer.sign(timestamp=moment) for moment in moments]

    assert together == [call().sign(timestamp=moment) for moment in moments]


def test_a_signer_is_shared_between_threads() -> None:
    moments = [NOW + timedelta(days=number % 3) for number in range(200)]
    expected = [call().sign(timestamp=moment) for moment in moments]
    shared = call()
    results: list[list[Any]] = []

    threads = [
        threading.Thread(target=lambda: results.append([shared.sign(timestamp=moment) for moment in moments]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [expected] * 4


def test_many_targets_do_not_pile_up() -> None:
    given = call()

    for number in range(1_000):
        given.sign(target=f"/model/{number}?page={number}")

    assert len(given.signer._targets) <= 256


wire_segments = st.lists(
    st.sampled_from(["a", "Model-1.5_x~", "%3A", "%2F", "%C3%A9", "%", *":+@(=&$*!',;"]), max_size=5
).map("".join)
wire_paths = st.lists(st.one_of(wire_segments, st.sampled_from(["", ".", "..", "..."])), max_size=6).map(
    lambda segments: "/" + "/".join(segments)
)
wire_queries = st.lists(
    st.sampled_from(["a=1", "b=2", "a=0", "A=1", "b", "b=", "=", "", "c=%20x", "c=%2B%2F%3D", "d==", "e=?/:@"]),
    max_size=5,
).map("&".join)
header_names = st.one_of(
    st.sampled_from(
        [
            *("content-type", "accept", "x-amzn-bedrock-trace", "x-amz-target", "x-amz-date", "x-amz-security-token"),
            *("user-agent", "x-amzn-trace-id", "traceparent", "authorization", "connection", "amz-sdk-request"),
        ]
    ),
    st.text("abcxyz-_0", min_size=1, max_size=8),
)
header_values = st.text("aZ09 \t:;,=/\"'%", max_size=12)
tokens = st.text("ABCabc019+/=", min_size=1, max_size=40)


@settings(deadline=None, max_examples=400)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=wire_paths,
    query=wire_queries,
    headers=st.lists(st.tuples(header_names, header_values), max_size=8),
    body=st.binary(max_size=60),
    token=st.none() | tokens,
    authority=st.sampled_from(["bedrock-runtime.us-east-1.amazonaws.com", "127.0.0.1:8123", "[::1]:8080"]),
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    region=st.sampled_from(["us-east-1", "us-gov-west-1"]),
    service=st.sampled_from(["bedrock", "bedrock-mantle", "sts"]),
)
def test_any_request_is_signed_as_botocore_signs_it(
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
    token: str | None,
    authority: str,
    moment: datetime,
    region: str,
    service: str,
) -> None:
    target = f"{path}?{query}" if query else path
    theirs = AWSRequest(method=method, url=f"http://{authority}{target}", data=body)
    for name, value in headers:
        theirs.headers.add_header(name, value)
    with patch.object(botocore.auth, "get_current_datetime", lambda: moment):
        botocore.auth.SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, token), service, region).add_auth(theirs)
    signer = SigV4Signer(
        access_key_id="AKIDEXAMPLE", secret_access_key=SECRET, session_token=token, region=region, service=service
    )

    added = dict(
        signer.sign(
            method=method,
            target=target,
            authority=authority,
            headers=headers,
            body=body,
            timestamp=moment,
            every_header=True,
        )
    )

    assert added["authorization"] == theirs.headers["Authorization"]
    assert added["x-amz-date"] == theirs.headers["X-Amz-Date"]
    assert added.get("x-amz-security-token") == token


def presign(changes: dict[str, Any]) -> str:
    given = FILE["presigned_query"][0]["input"]
    arguments: dict[str, Any] = {
        "access_key_id": given["access_key"],
        "secret_access_key": given["secret_key"],
        "session_token": given["session_token"],
        "region": given["region"],
        "service": "bedrock",
        "method": "POST",
        "target": "/?Action=CallWithBearerToken",
        "authority": "bedrock.amazonaws.com",
        "timestamp": NOW,
        "expires_seconds": given["expires"],
    }
    return presign_query(**arguments | changes)


def test_the_presigned_query_of_a_short_term_key_is_botocores() -> None:
    [vector] = FILE["presigned_query"]

    query = presign({})

    assert f"https://bedrock.amazonaws.com/?{query}" == vector["url"]
    key = base64.b64encode(f"bedrock.amazonaws.com/?{query}&Version=1".encode()).decode()
    assert f"bedrock-api-key-{key}" == vector["token"]


@given(token=st.none() | tokens, expires=st.integers(1, 43_200))
def test_any_presigned_query_is_botocores(token: str | None, expires: int) -> None:
    theirs = AWSRequest(method="POST", url="https://bedrock.amazonaws.com/?Action=CallWithBearerToken")
    with patch.object(botocore.auth, "get_current_datetime", lambda: NOW):
        botocore.auth.SigV4QueryAuth(
            Credentials("AKIDEXAMPLE", SECRET, token), "bedrock", "us-east-1", expires=expires
        ).add_auth(theirs)

    query = presign({"session_token": token, "expires_seconds": expires})

    assert f"https://bedrock.amazonaws.com/?{query}" == theirs.url


@pytest.mark.parametrize("negative", FILE["negative"], ids=lambda negative: negative["name"])
def test_a_common_mistake_is_refused_and_recognised(negative: dict[str, Any]) -> None:
    given = call(negative["of"])
    added = given.sign()
    right = parse_authorization(dict(added)["authorization"])
    service = "bedrock-runtime" if "SERVICE" in negative["name"].upper() else "bedrock"
    wrong = ParsedAuthorization(
        access_key_id=right.access_key_id,
        date=right.date,
        region=right.region,
        service=service,
        signed_headers=right.signed_headers,
        signature=negative["wrong_signature"],
    )

    received = given.received(added)
    mistake = recognise_mistake(wrong, secret_access_key=given.secret, **received)

    assert negative["wrong_signature"] != right.signature
    assert mistake is not None
    assert {"single": "once more", "raw": "raw ':'", "service": "'bedrock-runtime'"}[
        negative["name"].split("-")[1]
    ] in mistake
    # Proof that the mistake is understood: it makes exactly this signature.
    uri = {"single": urlsplit(given.target).path, "raw": urlsplit(given.target).path.replace("%3A", ":")}.get(
        negative["name"].split("-")[1]
    )
    again = expected_signature(wrong, secret_access_key=given.secret, uri=uri, **received)
    assert again == negative["wrong_signature"]
    assert recognise_mistake(right, secret_access_key="another", **received) is None


@pytest.mark.parametrize(
    ("signed", "sent", "words"),
    [("%3A", ":", "signed with '%3A' but sent with ':'"), (":", "%3A", "signed with ':', and something")],
)
def test_a_path_that_was_rewritten_after_signing_is_recognised(signed: str, sent: str, words: str) -> None:
    """httpx-aiohttp 0.2 turns %3A into a colon, for one."""
    given = call()
    added = given.sign(target=f"/model/x{signed}0/converse")
    authorization = parse_authorization(dict(added)["authorization"])

    received = given.received(added) | {"target": f"/model/x{sent}0/converse"}
    mistake = recognise_mistake(authorization, secret_access_key=given.secret, **received)

    assert mistake is not None
    assert words in mistake


CREDENTIAL = "AKID/20260115/us-east-1/bedrock/aws4_request"
SIGNATURE = "0" * 64


@pytest.mark.parametrize("comma", [", ", ",", " , "])
def test_an_authorization_is_taken_apart(comma: str) -> None:
    parts = (f"Credential={CREDENTIAL}", "SignedHeaders=host;x-amz-date", f"Signature={SIGNATURE}")

    parsed = parse_authorization(f"AWS4-HMAC-SHA256 {comma.join(parts)}")

    assert parsed == ParsedAuthorization(
        access_key_id="AKID",
        date="20260115",
        region="us-east-1",
        service="bedrock",
        signed_headers=("host", "x-amz-date"),
        signature=SIGNATURE,
    )
    assert parsed.scope == "20260115/us-east-1/bedrock/aws4_request"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ("Credential={credential}, SignedHeaders=host;x-amz-date", "Incomplete"),
        ("Credential={credential}, Credential={credential}, Signature={signature}", "Incomplete"),
        ("Credential=AKID/20260115, SignedHeaders=host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential=/20260115/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential=A/2026011/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential=A/20260115/r/s/aws3_request, SignedHeaders=host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential={credential}, SignedHeaders=x-amz-date;host, Signature={signature}", "Incomplete"),
        ("Credential={credential}, SignedHeaders=Host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential={credential}, SignedHeaders=host;host;x-amz-date, Signature={signature}", "Incomplete"),
        ("Credential={credential}, SignedHeaders=host;x-amz-date, Signature=F{signature}", "Incomplete"),
        ("Credential={credential}, SignedHeaders=x-amz-date, Signature={signature}", "InvalidSignature"),
        ("Credential={credential}, SignedHeaders=host, Signature={signature}", "InvalidSignature"),
    ],
)
def test_a_malformed_authorization_is_refused_with_the_code_of_aws(fields: str, code: str) -> None:
    value = f"AWS4-HMAC-SHA256 {fields.format(credential=CREDENTIAL, signature=SIGNATURE)}"

    with pytest.raises(AuthenticationError) as caught:
        parse_authorization(value)

    assert caught.value.code is not None
    assert caught.value.code.startswith(code)
    assert caught.value.status == 403


@pytest.mark.parametrize("value", ["", "Bearer abc", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1 Credential=x"])
def test_another_scheme_is_refused(value: str) -> None:
    with pytest.raises(AuthenticationError):
        parse_authorization(value)


@given(value=st.text(max_size=60) | st.text("=,; Credential/SgnHsu", max_size=80).map("AWS4-HMAC-SHA256 {}".format))
def test_no_authorization_makes_the_parser_raise_anything_else(value: str) -> None:
    with pytest.raises(AuthenticationError):
        parse_authorization(value)


def changed(name: str, value: str | None) -> Any:
    """One header replaced, or taken out."""

    def change(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        kept = [header for header in headers if header[0] != name]
        return kept if value is None else [*kept, (name, value)]

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (changed("content-type", None), "InvalidSignatureException"),
        (changed("host", None), "InvalidSignatureException"),
        (changed("x-amz-date", "20260116T000000Z"), "InvalidSignatureException"),
        (changed("x-amz-date", "yesterday"), "IncompleteSignatureException"),
        (changed("x-amz-security-token", "smuggled in"), "InvalidSignatureException"),
        (lambda headers: [*headers, ("x-amz-date", "20260115T123456Z")], "IncompleteSignatureException"),
    ],
)
def test_a_request_that_cannot_carry_this_signature_is_refused(change: Any, code: str) -> None:
    given = call()
    added = given.sign()
    received = given.received(added)
    received["headers"] = change(received["headers"])

    with pytest.raises(AuthenticationError) as caught:
        expected_signature(
            parse_authorization(dict(added)["authorization"]), secret_access_key=given.secret, **received
        )

    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"target": "/model/other/converse"},
        {"target": "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse?x=1"},
        {"body": b"{}"},
        {"headers": changed("host", "elsewhere")},
        {"headers": changed("content-type", "text/plain")},
        {"headers": changed("x-amz-date", "20260115T123457Z")},
    ],
    ids=str,
)
def test_a_request_that_was_changed_on_the_way_has_another_signature(change: dict[str, Any]) -> None:
    given = call()
    added = given.sign()
    authorization = parse_authorization(dict(added)["authorization"])
    received = given.received(added)
    headers = change.pop("headers", lambda headers: headers)(received["headers"])

    signature = expected_signature(
        authorization, secret_access_key=given.secret, **received | change | {"headers": headers}
    )

    assert signature != authorization.signature


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "", "anthropic.claude-3-haiku-20240307-v1%3A0"),
        ("anthropic.claude-3-haiku-20240307-v1:0", ":", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("arn:aws:bedrock:us-east-1:1:a/b", ":", "arn:aws:bedrock:us-east-1:1:a%2Fb"),
        ("../../evil", ":", "..%2F..%2Fevil"),
        ("weird model+id@(x),=&$!*';~_-.", "", "weird%20model%2Bid%40%28x%29%2C%3D%26%24%21%2A%27%3B~_-."),
        ("modèle?#%", "", "mod%C3%A8le%3F%23%25"),
    ],
)
def test_a_segment_is_encoded_but_for_what_is_to_be_kept(text: str, keep: str, expected: str) -> None:
    assert encode_path_segment(text, keep=keep) == expected


@pytest.mark.parametrize("text", ["", ".", "..", "\ud800"])
def test_what_no_segment_can_say_is_refused(text: str) -> None:
    """Percent-encoding leaves dots alone, so ``..`` would climb out of the path."""
    with pytest.raises(InvalidRequestError):
        encode_path_segment(text)


@pytest.mark.parametrize(
    "change",
    [
        {"access_key_id": "AKID\n"},
        {"access_key_id": "AKID/20260115"},
        {"access_key_id": ""},
        {"secret_access_key": f"{SECRET} "},
        {"secret_access_key": ""},
        {"session_token": "tok\r\nen"},
        {"region": "us-east-1 "},
        {"region": ""},
        {"service": "bed/rock"},
    ],
)
def test_careless_copies_of_credentials_are_refused_without_showing_them(change: dict[str, str]) -> None:
    parts = {"access_key_id": "AKID", "secret_access_key": SECRET, "region": "us-east-1", "service": "bedrock"}

    with pytest.raises(ConfigurationError) as caught:
        SigV4Signer(**parts | change)

    assert SECRET not in str(caught.value)
    assert "tok" not in str(caught.value).replace("token", "")


def test_an_empty_session_token_counts_as_none() -> None:
    signer = SigV4Signer(
        access_key_id="AKID", secret_access_key=SECRET, session_token="", region="us-east-1", service="bedrock"
    )

    assert [name for name, _ in signer.sign(method="GET", target="/", authority="h", timestamp=0)] == [
        "x-amz-date",
        "authorization",
    ]


@pytest.mark.parametrize("change", [{"target": "/\ud800"}, {"headers": [("content-type", "\ud800")]}])
def test_text_that_cannot_be_sent_is_refused_with_our_own_error(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        call().sign(**change)
