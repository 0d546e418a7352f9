"""What is read from this machine, and from those who hand out credentials: files, metadata, tokens, the key store.

Nobody hostile should write there. But a file is edited by hand, a disk fills up, a proxy answers in the place of
metadata, and a store may be given to us by somebody else.
"""

from __future__ import annotations

__all__ = ["STORED_TARGETS", "Sent"]

import asyncio
import atexit
import base64
import json
import math
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from cryptography.fernet import Fernet
from fuzz_targets import Target
from mutations import TEXT_TOKENS, junk, mutate_bytes, mutate_json

from apex_llm.credentials.aws_explicit import explicit_aws_credentials
from apex_llm.credentials.aws_files import judge_profile, read_profile
from apex_llm.credentials.aws_metadata import container_credentials, instance_credentials
from apex_llm.credentials.aws_region import aws_region, bedrock_bearer
from apex_llm.credentials.azure_entra import ClientSecret, Surroundings
from apex_llm.credentials.azure_managed import ManagedIdentity
from apex_llm.credentials.azure_tokens import azure_bearer
from apex_llm.credentials.manager import credentials_from_manager
from apex_llm.errors import ApexLlmError
from apex_llm.keys.agefile import check_header, decrypt, encrypt, is_recipient, new_identity, recipient_of
from apex_llm.keys.audit import AUDIT_FILE, AuditLog
from apex_llm.keys.document import Document, Record, Version, new_document, read_document, write_document
from apex_llm.keys.migration import read_legacy
from apex_llm.keys.os_layer import OsLayer
from apex_llm.keys.permissions import decide, granted_services
from apex_llm.keys.transfer import Bundle, read_bundle
from apex_llm.keys.unlockers import read_master_key
from apex_llm.types.http import Headers, HttpRequest

_NOW = 1_800_000_000.0
_IDENTITY = new_identity()
_FERNET = Fernet.generate_key()
_HUGE = (10**400, -(10**400), "1e400", "nan", "-inf", "-1", 1e308)
_INI = (b"\n[", b"]", b"[profile ", b" = ", b"\n ", b"\n\t", b";", b"#", b"%(a)s", b"[default]\n", b"\n=\n", b"'", b'"')


class Sent:
    """An answer that is there at once."""

    deadline: float | None = None
    read_deadline: float | None = None

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = Headers(tuple(headers.items()))
        self._body = body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def read_all(self, *, limit: int) -> bytes:
        return (await self.read())[:limit]

    def close(self) -> None:
        pass

    def add_release(self, callback: Callable[[], None]) -> None:
        callback()


async def _no_sleep(seconds: float) -> None:
    assert 0 <= seconds <= 120, f"a wait of {seconds} s"


def _answered(ask: Callable[[Any], Awaitable[Any]], answer: Callable[[HttpRequest], Sent]) -> Any:
    async def send(request: HttpRequest) -> Sent:
        return answer(request)

    found = _runner().run(ask(send))
    if found is not None:
        value = getattr(found, "value", found)
        expires_at = getattr(value, "expires_at", None)
        assert expires_at is None or math.isfinite(expires_at), f"expires at {expires_at}"
        refresh_at = getattr(found, "refresh_at", None)
        assert refresh_at is None or math.isfinite(refresh_at), f"to be renewed at {refresh_at}"
        repr(found)
    return found


@cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


@cache
def _workplace() -> Path:
    place = Path(tempfile.mkdtemp(prefix="apex-llm-fuzz-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _written(name: str, data: bytes) -> Path:
    path = _workplace() / name
    path.write_bytes(data)
    return path


def _json(value: Any, dice: Random) -> bytes:
    """As ``mutate_json``, and now and then a number that no float holds, or one that is none."""
    if isinstance(value, dict) and dice.random() < 0.3:
        value = {**value, dice.choice(list(value)): dice.choice(_HUGE)}
    return mutate_json(json.dumps(value).encode(), dice)


# Credentials ----------------------------------------------------------------------------------

_FILES = b"""[default]
aws_access_key_id = AKIDEXAMPLE
aws_secret_access_key = secret
region = eu-central-1
[profile dev]
role_arn = arn:aws:iam::1:role/r
source_profile = default
mfa_serial = arn
[profile 'sso one']
sso_account_id = 1
s3 =
  max_concurrent_requests = 5
[tool]
credential_process = /bin/tool --x
"""


def _shared_files(data: bytes, dice: Random) -> None:
    config, shared = _written("config", data), _written("credentials", dice.choice((data, _FILES, b"")))
    environ = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(shared)}
    name = dice.choice((None, "default", "dev", "sso one", "tool", "nobody"))
    try:
        profile = read_profile(name, environ=environ, home=None)
        repr(judge_profile(profile, environ=environ, from_argument=dice.random() < 0.5))
    finally:
        aws_region(environ=environ, profile=name)


_KEYS = {
    "AccessKeyId": "ASIAEXAMPLE",
    "SecretAccessKey": "secret",
    "Token": "token",
    "Expiration": "2030-01-01T00:00:00Z",
    "Code": "Success",
}
_DATES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2030-01-01", "20300101T000000Z", "x", "1e9", "")


def _keys(dice: Random) -> bytes:
    return _json({**_KEYS, "Expiration": dice.choice((_KEYS["Expiration"], *_DATES))}, dice)


def _container(data: bytes, dice: Random) -> None:
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": dice.choice(
            (*["http://127.0.0.1/x"] * 9, mutated("http://127.0.0.1:80/x", dice))
        ),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": dice.choice((*["token"] * 9, mutated("token", dice))),
    }
    status = dice.choice((200, 200, 200, 404, 429, 500))
    _answered(
        lambda send: container_credentials(send, environ=environ, sleep=_no_sleep),
        lambda _: Sent(status, data, {}),
    )


def _instance(data: bytes, dice: Random) -> None:
    broken = dice.choice(("token", "role", "credentials", "credentials"))

    def answer(request: HttpRequest) -> Sent:
        which = "token" if request.method == "PUT" else "role" if request.target.endswith("/") else "credentials"
        good = {"token": b"token", "role": b"role\n", "credentials": json.dumps(_KEYS).encode()}[which]
        return Sent(dice.choice((200, 200, 200, 403, 404, 503)), data if which == broken else good, {})

    _answered(lambda send: instance_credentials(send, environ={}, sleep=_no_sleep), answer)


_TOKEN = {"access_token": "token", "expires_in": 3599, "expires_on": "1800003600", "refresh_in": 1800}
_REFUSAL = {"error": "invalid_client", "error_description": "AADSTS7000215: no. Trace ID: x", "trace_id": "t"}


def _entra(data: bytes, dice: Random) -> None:
    status = dice.choice((200, 200, 200, 400, 401, 410, 429, 503))
    wait = dice.choice(("1", "nan", "-5", "1e400", "31", mutated("30", dice)))
    managed = dice.random() < 0.5
    credential = ManagedIdentity(client_id="id") if managed else ClientSecret("tenant", "id", "secret")

    def ask(send: Any) -> Awaitable[Any]:
        surroundings = Surroundings(send=send, environ={}, clock=lambda: _NOW, sleep=_no_sleep)
        return credential.fetch_token("https://cognitiveservices.azure.com/.default", surroundings)

    _answered(ask, lambda _: Sent(status, data, {"retry-after": wait}))


def _jwt(data: bytes, _: Random) -> None:
    claims = base64.urlsafe_b64encode(data).decode().rstrip("=")
    for token in (f"e30.{claims}.c2ln", data.decode("latin-1")):
        try:
            found = azure_bearer(token, source="test")
        except ApexLlmError:
            continue
        assert found.expires_at is None or math.isfinite(found.expires_at)


_STORED = {
    "aws_access_key_id": "AKID",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "expiry_time": "2030-01-01T00:00:00Z",
    "aws_region": "us-east-1",
    "api_key": "key",
    "api_base": "https://x.openai.azure.com",
}


def _from_manager(data: bytes, _: Random) -> None:
    """Whatever somebody has put into a key manager, or passes as ``credentials=``."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = data.decode("latin-1")

    class Manager:
        def get_api_key(self, service: str) -> Any:
            return value

    async def look() -> None:
        found = credentials_from_manager(Manager(), "service")
        for source in (found.aws(), found.bearer(), found.azure()):
            await _quietly(source.get())

    _runner().run(look())
    for make in (explicit_aws_credentials, bedrock_bearer):
        _typed(lambda make=make: make(value))


async def _quietly(awaitable: Awaitable[object]) -> None:
    try:
        repr(await awaitable)
    except ApexLlmError as error:
        str(error)


def _typed(read: Callable[[], object]) -> None:
    try:
        repr(read())
    except ApexLlmError as error:
        str(error)


def mutated(text: str, dice: Random) -> str:
    return mutate_bytes(text.encode(), dice).decode("latin-1")


# Key store ------------------------------------------------------------------------------------


@cache
def _document() -> Document:
    document = new_document(recipient_of(_IDENTITY), None, now=_NOW)
    document.generation = 3
    value = Version(value={"aws_access_key_id": "AKID", "aws_secret_access_key": "s"}, since=_NOW)
    document.credentials["aws_bedrock"] = {"api_key": Record(current=value, previous=value, created=_NOW, rotated=_NOW)}
    document.credentials["azure"] = {"oauth_token": Record(current=Version(value="k", since=1), created=1, rotated=1)}
    return document


@cache
def _document_json() -> dict[str, Any]:
    found = json.loads(write_document(_document()))
    grants = [{"service": "azure", "models": ["gpt-*", "[!a]?"], "expires": _NOW}, {"service": "azure"}]
    return found | {"permissions": {"plugin": grants}}


def _store(data: bytes, _: Random) -> None:
    document = read_document(data, what="it")
    repr(document)
    document.recipients.all()
    for plugin in ("plugin", *document.permissions):
        for service in ("azure", *document.credentials):
            decide(document, plugin, service, model="gpt-" + "4" * 30, now=_NOW)
    for grants in document.permissions.values():
        granted_services(grants, now=_NOW)
    write_document(document)


@cache
def _log() -> bytes:
    place = _workplace() / "log"
    place.mkdir(mode=0o700, exist_ok=True)
    log = AuditLog(place, OsLayer())
    for number in range(6):
        log.append(_document(), time=_NOW + number, plugin="p", operation="get", service="azure", decision="allowed")
    return (place / AUDIT_FILE).read_bytes()


def _shuffled_log(dice: Random) -> bytes:
    lines = _log().splitlines(keepends=True)
    if dice.random() < 0.5:
        dice.shuffle(lines)
    return mutate_bytes(b"".join(lines[: dice.randrange(1, 7)]), dice, tokens=(b"\n", b'"mac":"', b"}", b"\x00", b"{"))


def _audit(data: bytes, dice: Random) -> None:
    _log()
    _written(f"log/{AUDIT_FILE}", data)
    log = AuditLog(_workplace() / "log", OsLayer())
    for entry in log.entries():
        repr(entry)
    count, problems = log.verify(_document())
    assert count <= data.count(b"\n") + 1
    assert all(len(problem) < 300 for problem in problems)
    log.head(_document())
    if dice.random() < 0.2:
        log.append(_document(), time=_NOW, plugin=None, operation="x", service=None, decision="d", strict=True)


@cache
def _encrypted() -> bytes:
    return encrypt(write_document(_document()), [recipient_of(_IDENTITY)])


_SCRYPT = b"age-encryption.org/v1\n-> scrypt Zm9vYmFyYmF6cXV4MTIzNA 18\n" + b"A" * 43 + b"\n--- " + b"B" * 43 + b"\n"


def _age(data: bytes, dice: Random) -> None:
    _typed(lambda: check_header(data, expected="scrypt", what="it"))
    if dice.random() < 0.3:
        decrypt(data, [_IDENTITY], what="it")
    else:
        check_header(data, expected="X25519", what="it")


def _age_file(dice: Random) -> bytes:
    tokens = (b"\n", b"-> ", b"--- ", b" 22", b" 99", b"scrypt", b"X25519 ", b"-grease", b"\n-> X25519 A\n" * 9)
    return mutate_bytes(dice.choice((_encrypted(), _SCRYPT)), dice, tokens=tokens)


def _bundle(data: bytes, dice: Random) -> None:
    """An export, and the file of the older manager: encrypted well, and holding anything."""
    if dice.random() < 0.5:
        path = _written("export.age", encrypt(data, [recipient_of(_IDENTITY)]))
        repr(read_bundle(path, passphrase=None, identity=_IDENTITY))
    else:
        path = _written("legacy.enc", Fernet(_FERNET).encrypt(data) if dice.random() < 0.9 else data)
        repr(read_legacy(path, _FERNET.decode()))


def _bundle_json(dice: Random) -> bytes:
    bundle = Bundle.of(_document(), None)
    new = {"export": bundle.export, "credentials": bundle.credentials, "permissions": _document_json()["permissions"]}
    old = {"api_keys": {"a": "k", "b": {"c": [1]}}, "oauth_tokens": {"d": {"access_token": "t"}}}
    return _json(dice.choice((new, old)), dice)


def _master_key(data: bytes, _: Random) -> None:
    text = data.decode("latin-1")
    is_recipient(text)
    read_master_key(text, source="it")


_MASTER_KEYS = (_IDENTITY.encode(), base64.b64encode(bytes(range(32))), recipient_of(_IDENTITY).encode())

STORED_TARGETS: tuple[Target, ...] = (
    Target("shared aws files", 3, lambda dice: mutate_bytes(_FILES, dice, tokens=_INI + TEXT_TOKENS), _shared_files),
    Target("container answer", 5, _keys, _container),
    Target("instance metadata", 5, lambda dice: dice.choice((_keys, _name))(dice), _instance),
    Target("entra answer", 8, lambda dice: _json(dice.choice((_TOKEN, _REFUSAL)), dice), _entra),
    Target("token's claims", 6, lambda dice: _json({"exp": 1_800_003_600, "aud": "a"}, dice), _jwt),
    Target("stored credential", 6, lambda dice: _json(_STORED, dice), _from_manager),
    Target("key store", 10, lambda dice: _json(_document_json(), dice), _store),
    Target("audit log", 2, _shuffled_log, _audit),
    Target("age file", 6, _age_file, _age),
    Target("export", 4, _bundle_json, _bundle, memory=20 << 20),
    Target("master key", 6, lambda dice: mutate_bytes(dice.choice(_MASTER_KEYS), dice), _master_key),
)


def _name(dice: Random) -> bytes:
    return mutate_bytes(dice.choice((b"role", b"<html>", b"a b\nc", str(junk(dice)).encode("utf-8", "replace"))), dice)
