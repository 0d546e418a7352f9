"""Where AWS credentials come from: one order of precedence, each source whole or not at all.

Explicit argument, key manager, environment; then the profile's static keys, the container
endpoint and instance metadata, here; and what else a profile may ask for (roles, SSO, web
identity, ``credential_process``) through ``aws_chain``. The order is botocore's, and botocore
is loaded only for profiles that need it.
"""

from __future__ import annotations

__all__ = ["aws_credentials", "aws_region", "bedrock_bearer", "region_of"]

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from apex_llm.credentials import aws_region as _region
from apex_llm.credentials.aws_explicit import explicit_aws_credentials, pair, region_of
from apex_llm.credentials.cached import CachedCredentials, Fetched, StaticCredentials
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import ApexLlmError, MissingCredentialsError, ResponseFormatError
from apex_llm.types.http import Send
from apex_llm.types.secrets import AccessToken, AwsCredentials, CredentialSource, Secret

# Each place is imported when it is looked at: keys that were passed, or set in the environment, need none of them.
if TYPE_CHECKING:
    from pathlib import Path

    from apex_llm.credentials.aws_files import Profile, ProfileVerdict
    from apex_llm.credentials.manager import ManagerCredentials

_RECHECK = 5.0
# Seconds after which static keys of a file are looked at again, in the background.


def aws_credentials(
    *,
    credentials: Any = None,
    manager: ManagerCredentials | None = None,
    profile: str | None = None,
    region: str | None = None,
    environ: Mapping[str, str] | None = None,
    send: Send | None = None,
    home: Path | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> CredentialSource[AwsCredentials]:
    """A source of AWS credentials, kept fresh. Reads nothing yet but the environment.

    Args:
        credentials: A dictionary, an object with such attributes, a botocore, boto3 or aiobotocore
            session or credentials, a callback; see ``explicit_aws_credentials``. Excludes the rest.
        manager: From ``credentials_from_manager``; what follows is asked where it holds nothing.
        profile: A profile of the shared files; naming one leaves the environment's keys out.
        region: For the calls to STS that roles need.
        environ: Instead of ``os.environ``.
        send: For the container endpoint and instance metadata, which are left out without it. It
            must reach link-local addresses, and use no proxy for them.
        home: Instead of the user's home directory.
        clock: Seconds since the epoch.
        sleep: Waits between tries.

    Raises:
        MissingCredentialsError: ``credentials`` is incomplete. What other sources lack is told by ``get()``.
    """
    environ = os.environ if environ is None else environ
    if credentials is not None:
        return explicit_aws_credentials(credentials, clock=clock)
    source = _automatic(
        _Chain(profile=profile, region=region, environ=environ, send=send, home=home, clock=clock, sleep=sleep)
    )
    return source if manager is None else manager.aws(fallback=source)


async def aws_region(
    explicit: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    profile: str | None = None,
    home: Path | None = None,
) -> tuple[str, str]:
    """The region and where it came from: ``argument``, a variable, ``profile 'x'`` or ``default``.

    Order: argument, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the profile, ``us-east-1``. The shared
    files are read in a thread, and only if neither argument nor environment decides.

    Raises:
        InvalidEndpointError: What was found is not the name of a region.
    """
    environ = os.environ if environ is None else environ
    find = partial(_region.aws_region, explicit, environ=environ, profile=profile, home=home)
    if explicit or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        return find()
    return await run_in_thread(find)


def bedrock_bearer(
    explicit: str | Secret | Callable[[], Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    manager: ManagerCredentials | None = None,
    clock: Callable[[], float] = time.time,
) -> CredentialSource[AccessToken] | None:
    """A source of the Bedrock API key, or ``None`` where requests are to be signed.

    Args:
        explicit: The key, or a function that gives short-term ones.
        environ: Where ``AWS_BEARER_TOKEN_BEDROCK`` is looked for, if ``manager`` holds nothing.
        manager: From ``credentials_from_manager``, whose ``settings()`` were awaited.
        clock: Seconds since the epoch.
    """
    if explicit is None and manager is not None and manager.kind is not None:
        return manager.bearer() if manager.kind == "bearer" else None
    return _region.bedrock_bearer(explicit, environ=environ, clock=clock)


def _automatic(chain: _Chain) -> CredentialSource[AwsCredentials]:
    if chain.profile is None and not chain.environ.get("AWS_CREDENTIAL_EXPIRATION"):
        try:
            found = _environment(chain.environ)
        except MissingCredentialsError:
            found = None  # raised where somebody waits for it
        if found is not None:
            # No expiry, no waiting: signing can start inline with the first call.
            return StaticCredentials(found, reload=partial(_environment_or_none, chain.environ))
    return CachedCredentials(chain.fetch, name="AWS credentials", clock=chain.clock)


class _Chain:
    """The sources that need no argument, asked in turn; each says why it had nothing."""

    def __init__(
        self,
        *,
        profile: str | None,
        region: str | None,
        environ: Mapping[str, str],
        send: Send | None,
        home: Path | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.profile = profile
        self.environ = environ
        self.clock = clock
        self._region = region
        self._send = send
        self._home = home
        self._sleep = sleep
        self._on_machine = False

    async def fetch(self) -> AwsCredentials | Fetched[AwsCredentials]:
        tried: list[str] = []
        if self.profile is None:
            found = _environment(self.environ)
            if found is not None:
                return found
            tried.append("environment (AWS_ACCESS_KEY_ID is not set)")
        profile, verdict, legacy = await run_in_thread(self._look)
        if verdict.credentials is not None:
            return Fetched(verdict.credentials, refresh_at=self.clock() + _RECHECK)
        if verdict.needs is not None:
            return await self._botocore(profile, verdict.needs)
        tried.append(f"profile {profile.name!r} (no keys in {profile.shared_path} or {profile.config_path})")
        if legacy is not None:
            try:
                return await self._botocore(profile, legacy)
            except ApexLlmError as error:
                tried.append(f"{legacy} ({error.message})")
        return await self._machine(tried)

    async def _machine(self, tried: list[str]) -> AwsCredentials:
        from apex_llm.credentials.aws_metadata import container_credentials, container_variable, instance_credentials

        variable = container_variable(self.environ)
        cause: ApexLlmError | None = None
        if self._send is None:
            tried.append("container endpoint and instance metadata (not asked: no sender was given)")
        elif variable is not None:
            # A container that names its agent means it: the role of the machine below is another principal.
            return await container_credentials(self._send, environ=self.environ, sleep=self._sleep)
        else:
            tried.append("container endpoint (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set)")
            try:
                found = await instance_credentials(
                    self._send, environ=self.environ, sleep=self._sleep, clock=self.clock
                )
            except MissingCredentialsError as error:
                cause = error
                tried.append(error.message.rstrip("."))
            else:
                if found is not None:
                    self._on_machine = True
                    return found
                tried.append("instance metadata (AWS_EC2_METADATA_DISABLED is true)")
        from apex_llm.credentials.misnamed import KEYS_OF_AWS, misnamed

        raise MissingCredentialsError(
            f"No AWS credentials were found. Tried: {'; '.join(tried)}.",
            hint=misnamed(KEYS_OF_AWS, self.environ)
            or (cause.hint if cause else None)
            or "Pass credentials=, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            # Where a role was never seen there most likely is none: trying again only costs seconds.
            retryable=self._on_machine and cause is not None and cause.retryable,
            phase="prepare",
        ) from cause

    def _look(self) -> tuple[Profile, ProfileVerdict, str | None]:
        """What the files say, and where the files of the time before profiles are, if botocore can read them."""
        from apex_llm.credentials.aws_chain import installed_botocore
        from apex_llm.credentials.aws_files import judge_profile, read_profile

        profile = read_profile(self.profile, environ=self.environ, home=self._home)
        verdict = judge_profile(profile, environ=self.environ, from_argument=self.profile is not None)
        legacy = None
        if verdict.credentials is None and verdict.needs is None:
            legacy = next((name for name in ("AWS_CREDENTIAL_FILE", "BOTO_CONFIG") if self.environ.get(name)), None)
            if legacy is not None and installed_botocore() is None:
                legacy = None
        return profile, verdict, legacy

    def _botocore(self, profile: Profile, needs: str) -> Awaitable[AwsCredentials]:
        from apex_llm.credentials.aws_chain import botocore_credentials

        return botocore_credentials(
            profile,
            needs=needs,
            from_argument=self.profile is not None,
            region=self._region,
            environ=self.environ,
        )


def _environment(environ: Mapping[str, str]) -> AwsCredentials | None:
    """Key, secret and token of the environment, as one."""
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key and not secret:
        return None
    expires_at: float | None = None
    if expiration := environ.get("AWS_CREDENTIAL_EXPIRATION"):
        from apex_llm.credentials.http import seconds_from_iso

        try:
            expires_at = seconds_from_iso(expiration, name="AWS_CREDENTIAL_EXPIRATION")
        except ResponseFormatError as error:
            raise MissingCredentialsError(
                error.message, hint="Write it as 2030-01-31T12:00:00Z, or unset it for keys that do not expire."
            ) from error
    return pair(
        key,
        secret,
        environ.get("AWS_SESSION_TOKEN") or environ.get("AWS_SECURITY_TOKEN"),
        source="environment",
        expires_at=expires_at,
    )


def _environment_or_none(environ: Mapping[str, str]) -> AwsCredentials | None:
    try:
        return _environment(environ)
    except MissingCredentialsError:
        return None
