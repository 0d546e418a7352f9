"""What needs botocore: roles, web identity, SSO, commands. The judge is botocore, on the same files and fakes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from urllib.parse import parse_qs

import botocore.session
import pytest
from credential_fakes import Fake, iso, no_sleep

from apex_llm.credentials import aws_chain
from apex_llm.credentials.aws import aws_credentials
from apex_llm.errors import AuthenticationError, MissingCredentialsError

ROLE = "arn:aws:iam::111122223333:role/r"


def sts(life: float = 3600.0):
    def answer(seen):
        action = parse_qs(seen.body.decode())["Action"][0]
        body = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
            f"<AccessKeyId>AKIDSTS</AccessKeyId><SecretAccessKey>sts-secret</SecretAccessKey>"
            f"<SessionToken>sts-token</SessionToken><Expiration>{iso(life)}</Expiration></Credentials>"
            f"</{action}Result></{action}Response>"
        )
        return 200, body, {"content-type": "text/xml"}

    return answer


def refusal(code: str, message: str):
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>req-1</RequestId></ErrorResponse>"
    )
    return lambda _: (403, body, {"content-type": "text/xml"})


STATIC = (
    "[default]\naws_access_key_id=AKIDSHARED\naws_secret_access_key=shared-secret\naws_session_token=shared-token\n"
)
CASES = {
    "shared": ("", STATIC, {}),
    "config": ("[default]\naws_access_key_id=AKIDCONFIG\naws_secret_access_key=cs\n", "", {}),
    "shared beats config": ("[default]\naws_access_key_id=AKIDCONFIG\naws_secret_access_key=cs\n", STATIC, {}),
    "profile from AWS_PROFILE": (
        "[profile w]\naws_access_key_id=AKIDW\naws_secret_access_key=ws\n",
        STATIC,
        {"AWS_PROFILE": "w"},
    ),
    "assume role": (
        f"[profile r]\nrole_arn={ROLE}\nsource_profile=default\nexternal_id=ext\nrole_session_name=me\n",
        STATIC,
        {"AWS_PROFILE": "r"},
    ),
    "assume role beats static keys": (f"[default]\nrole_arn={ROLE}\nsource_profile=default\n", STATIC, {}),
    "web identity of the environment beats the file": (
        "",
        STATIC,
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "@jwt", "AWS_ROLE_ARN": ROLE, "AWS_ROLE_SESSION_NAME": "sess"},
    ),
    "web identity of a profile": (
        f"[profile i]\nrole_arn={ROLE}\nweb_identity_token_file=@jwt\n",
        "",
        {"AWS_PROFILE": "i"},
    ),
    "command": ("[default]\ncredential_process=@command\n", "", {}),
    "shared beats command": ("[default]\ncredential_process=@command\n", STATIC, {}),
    "command beats config": (
        "[default]\ncredential_process=@command\naws_access_key_id=AKIDCONFIG\naws_secret_access_key=cs\n",
        "",
        {},
    ),
    "duplicate forms of default": (
        f"[profile default]\n{STATIC[10:]}\n[default]\naws_access_key_id=TWO\naws_secret_access_key=s\n",
        "",
        {},
    ),
    "quoted profile name": (
        '[profile "two words"]\naws_access_key_id=QUOTED\naws_secret_access_key=s\n',
        "",
        {"AWS_PROFILE": "two words"},
    ),
    "values with signs of their own": ("", "[default]\naws_access_key_id = A=B\naws_secret_access_key = a%b#c;d\n", {}),
}


@pytest.fixture
def world(tmp_path, monkeypatch: pytest.MonkeyPatch, home, fake: Fake):
    """Files and environment that both chains read."""

    def make(config: str, shared: str, environ: dict[str, str] | None = None) -> None:
        jwt = tmp_path / "jwt"
        jwt.write_text("jwt-canary")
        command = tmp_path / "command.py"
        command.write_text(
            "import json;print(json.dumps({'Version':1,'AccessKeyId':'AKIDCOMMAND','SecretAccessKey':'s',"
            "'SessionToken':'t','Expiration':'2099-01-01T00:00:00Z'}))"
        )

        def fill(text: str) -> str:
            return text.replace("@jwt", str(jwt)).replace("@command", f"{sys.executable} {command}")

        (home / "config").write_text(fill(config))
        (home / "credentials").write_text(fill(shared))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fake.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name, value in (environ or {}).items():
            monkeypatch.setenv(name, fill(value))

    fake.answer = sts()
    return make


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("library", ["aiobotocore", "botocore"])
async def test_every_profile_gives_what_botocore_finds(world, name: str, library: str, monkeypatch) -> None:
    world(*CASES[name])
    monkeypatch.setattr(aws_chain, "installed_botocore", lambda: library)
    theirs = await asyncio.to_thread(lambda: botocore.session.get_session().get_credentials().get_frozen_credentials())

    ours = await aws_credentials(environ=dict(os.environ), sleep=no_sleep).get()

    assert (
        ours.access_key_id,
        ours.secret_access_key.reveal(),
        ours.session_token and ours.session_token.reveal(),
    ) == tuple(theirs)[:3]


@pytest.mark.parametrize("name", ["assume role", "web identity of the environment beats the file"])
async def test_the_call_to_sts_is_the_profile_s_own(world, fake: Fake, name: str) -> None:
    world(*CASES[name])

    found = await aws_credentials(environ=dict(os.environ)).get()

    form = parse_qs(fake.seen[-1].body.decode())
    assert form["RoleArn"] == [ROLE]
    assert found.expires_at == pytest.approx(time.time() + 3600, abs=5)
    if "web" in name:
        assert form["WebIdentityToken"] == ["jwt-canary"]
        assert "authorization" not in fake.seen[-1].headers
    else:
        assert form["ExternalId"] == ["ext"]
        assert form["RoleSessionName"] == ["me"]


async def test_a_role_is_assumed_again_when_its_credentials_end(world, fake: Fake) -> None:
    world(*CASES["assume role"])
    now = time.time()
    source = aws_credentials(environ=dict(os.environ), clock=lambda: now)
    await asyncio.gather(*(source.get() for _ in range(50)))
    assert len(fake.seen) == 1
    now += 3100
    fake.answer = sts(life=7200)

    await asyncio.gather(*(source.get() for _ in range(50)))

    assert len(fake.seen) == 2


async def test_a_refusal_of_sts_is_told_with_its_code(world, fake: Fake) -> None:
    world(*CASES["assume role"])
    fake.answer = refusal("AccessDenied", "User is not authorized to perform sts:AssumeRole\ncanonical-canary")

    with pytest.raises(AuthenticationError) as caught:
        await aws_credentials(environ=dict(os.environ)).get()

    assert caught.value.code == "AccessDenied"
    assert caught.value.request_id == "req-1"
    assert "trust policy" in caught.value.hint
    assert "canary" not in str(caught.value)


def sso_profile(style: str) -> str:
    if style == "session":
        return (
            "[profile dev]\nsso_session=corp\nsso_account_id=111122223333\nsso_role_name=Dev\n"
            "[sso-session corp]\nsso_region=us-east-1\nsso_start_url=https://example.awsapps.com/start\n"
        )
    return (
        "[profile dev]\nsso_region=us-east-1\nsso_start_url=https://example.awsapps.com/start\n"
        "sso_account_id=111122223333\nsso_role_name=Dev\n"
    )


def run(code: str, home, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter: botocore fixes the place of its SSO cache when it is imported."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


SSO = """
    import asyncio, os, pathlib, sys
    from apex_llm.credentials.aws import aws_credentials
    from apex_llm.errors import ApexLlmError
    async def attempt():
        try:
            found = await aws_credentials(profile="dev").get()
            print(found.access_key_id, found.session_token.reveal(), found.expires_at, end=";")
        except ApexLlmError as error:
            print(type(error).__name__, error, end=";")
    file, expired = pathlib.Path(sys.argv[1]), sys.argv[2]
    asyncio.run(attempt())
    file.write_text(expired)
    asyncio.run(attempt())
    file.unlink()
    asyncio.run(attempt())
"""


@pytest.mark.parametrize("style", ["session", "legacy"])
def test_sso_with_a_valid_and_with_an_expired_session(home, fake: Fake, style: str) -> None:
    (home / ".aws" / "config").write_text(sso_profile(style))
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    key = "corp" if style == "session" else "https://example.awsapps.com/start"
    token = {"startUrl": "https://example.awsapps.com/start", "region": "us-east-1", "accessToken": "acc-canary"}
    file = cache / f"{hashlib.sha1(key.encode()).hexdigest()}.json"
    file.write_text(json.dumps({**token, "expiresAt": iso(7200)}))
    fake.answer = lambda _: {
        "roleCredentials": {
            "accessKeyId": "AKIDSSO",
            "secretAccessKey": "s",
            "sessionToken": "t",
            "expiration": 4070908800000,
        }
    }
    environ = {"AWS_ENDPOINT_URL_SSO": fake.url, "AWS_ENDPOINT_URL_SSO_OIDC": fake.url}

    finished = run(SSO, home, str(file), json.dumps({**token, "expiresAt": iso(-60)}), **environ)

    good, expired, never, _ = finished.stdout.split(";") if finished.stdout else [finished.stderr] * 4
    assert good.split() == ["AKIDSSO", "t", "4070908800.0"]
    for text in (expired, never):
        assert text.startswith("MissingCredentialsError")
        assert "aws sso login --profile dev" in text
    assert "canary" not in finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("config", "shared", "environ", "key"),
    [
        (f"[default]\nrole_arn={ROLE}\nsource_profile=x\n", "", {}, "role_arn"),
        ("[default]\nsso_account_id=1\nsso_role_name=r\n", STATIC, {}, "sso_account_id"),
        ("[default]\ncredential_process=x\n", "", {}, "credential_process"),
        ("[default]\nlogin_session=x\n", "", {}, "login_session"),
        ("", STATIC, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/x", "AWS_ROLE_ARN": ROLE}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ],
)
async def test_without_the_extra_the_error_names_what_needs_it(
    world, config, shared, environ, key, monkeypatch
) -> None:
    world(config, shared, environ)
    monkeypatch.setattr(aws_chain, "installed_botocore", lambda: None)

    with pytest.raises(MissingCredentialsError, match=key) as caught:
        await aws_credentials(environ=dict(os.environ)).get()

    assert 'pip install "apex-llm[aws]"' in caught.value.hint


async def test_a_code_is_never_asked_for(world) -> None:
    """botocore would wait for somebody to type it in, in a thread of a server."""
    world(f"[default]\nrole_arn={ROLE}\nsource_profile=base\nmfa_serial=arn:aws:iam::1:mfa/me\n", "")

    with pytest.raises(MissingCredentialsError, match="mfa_serial"):
        await aws_credentials(environ=dict(os.environ)).get()


async def test_a_failing_command_does_not_put_its_output_into_the_error(world, tmp_path) -> None:
    command = tmp_path / "bad.py"
    command.write_text("import sys;sys.stderr.write('canary');sys.exit(3)")
    world(f"[default]\ncredential_process={sys.executable} {command}\n", "")

    with pytest.raises(MissingCredentialsError, match="credential_process") as caught:
        await aws_credentials(environ=dict(os.environ)).get()
    assert "canary" not in str(caught.value)


async def test_static_keys_never_load_botocore(home) -> None:
    (home / ".aws" / "credentials").write_text(STATIC)
    code = """
        import asyncio, sys
        from apex_llm.credentials.aws import aws_credentials, aws_region
        from apex_llm.credentials.azure import azure_credentials
        async def main():
            await aws_region()
            print((await aws_credentials().get()).access_key_id)
            await azure_credentials(api_key="k").source.get()
        asyncio.run(main())
        print([name for name in ("botocore", "aiobotocore", "aiohttp", "httpx", "azure") if name in sys.modules])
    """
    finished = await asyncio.to_thread(run, code, home)

    assert finished.stdout.split("\n")[:2] == ["AKIDSHARED", "[]"], finished.stderr


HEARTBEAT = """
    import asyncio, os, sys, time
    from apex_llm.credentials.aws import aws_credentials
    async def main():
        gaps, running = [], True
        async def beat():
            last = time.perf_counter()
            while running:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now
        beating = asyncio.create_task(beat())
        await asyncio.sleep(0.05)
        gaps.clear()
        begun = time.perf_counter()
        assert "botocore" not in sys.modules
        found = await aws_credentials(profile="r").get()
        took = time.perf_counter() - begun
        assert "aiobotocore" in sys.modules
        running = False
        await beating
        gaps.sort()
        print(found.access_key_id, took, len(gaps), gaps[len(gaps) // 2], gaps[-1])
    asyncio.run(main())
"""


def test_the_loop_keeps_beating_while_aiobotocore_is_imported(world, home) -> None:
    world(*CASES["assume role"])

    finished = run(HEARTBEAT, home)

    key, took, beats, median, longest = finished.stdout.split() if finished.stdout else [finished.stderr] * 5
    print("first import and role:", took, "s;", beats, "beats; median", median, "longest", longest)
    assert key == "AKIDSTS"
    # On the loop itself this would be one gap as long as everything took, and no beats.
    assert int(beats) > 20
    assert float(longest) < max(0.2, float(took) / 3)
