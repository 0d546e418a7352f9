"""Roles, SSO, web identity and commands, through aiobotocore, or botocore where only that is there.

The only module that imports them, and only when a profile asks for what they can do. Import,
files and calls run on a daemon thread of their own (aiobotocore on a loop of its own there):
importing takes half a second, and making an STS client parses megabytes of JSON, all of which
the caller's loop would stand still for. Each fetch starts afresh, so nothing is shared
between loops, and ``CachedCredentials`` alone decides when to refresh.
"""

from __future__ import annotations

__all__ = ["botocore_credentials", "installed_botocore"]

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import threading
from collections.abc import Generator, Mapping
from typing import Any, cast

import msgspec

from apex_llm.credentials.aws_explicit import pair
from apex_llm.credentials.aws_files import Profile, profile_name
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import ApexLlmError, AuthenticationError, MissingCredentialsError
from apex_llm.types.secrets import AwsCredentials

_LIMIT_SECONDS = 60.0
_FALLBACK_REGION = "us-east-1"
_INSTALL = 'pip install "apex-llm[aws]"'
_LOCAL = ("env", "container-role", "iam-role")
# Providers of botocore whose part is done without it.

_SSO = frozenset({"SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError", "TokenRetrievalError"})
_LOGIN = frozenset({"LoginError", "LoginRefreshRequired", "LoginTokenLoadError", "LoginInsufficientPermissions"})
_NETWORK = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "HTTPClientError", "ConnectionClosedError"}
)


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the thread needs to know."""

    library: str
    profile: str
    profile_from_argument: bool
    config_file: str
    credentials_file: str
    region: str
    needs: str


def installed_botocore() -> str | None:
    """``"aiobotocore"``, ``"botocore"`` or ``None``; looks without importing, on the disk: call it in a thread."""
    for name in ("aiobotocore", "botocore"):
        if importlib.util.find_spec(name) is not None:
            return name
    return None


async def botocore_credentials(
    profile: Profile,
    *,
    needs: str,
    from_argument: bool,
    region: str | None,
    environ: Mapping[str, str],
) -> AwsCredentials:
    """What botocore's own chain gives for ``profile``.

    ``needs`` is the setting that asks for it, for messages. botocore reads other variables than
    the profile's name and the files' paths from the process's environment.

    Raises:
        MissingCredentialsError: It gave none, or is not installed.
        AuthenticationError: The service it asked refused.
    """
    library = await run_in_thread(installed_botocore)
    if library is None:
        raise MissingCredentialsError(
            f"The AWS profile {profile.name!r} uses {needs}, which needs aiobotocore."
            if needs != "AWS_WEB_IDENTITY_TOKEN_FILE"
            else "AWS_WEB_IDENTITY_TOKEN_FILE is set; a web identity needs aiobotocore.",
            hint=f"{_INSTALL}, or pass credentials=.",
        )
    plan = _Plan(
        library=library,
        profile=profile.name,
        # botocore leaves the environment's web identity out for a profile named in code. It is
        # named so too if the mapping we were given says other than the process's environment.
        profile_from_argument=from_argument or profile.name != profile_name(None, os.environ),
        config_file=str(profile.config_path),
        credentials_file=str(profile.shared_path),
        region=region
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profile.merged.get("region")
        or _FALLBACK_REGION,
        needs=needs,
    )
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            return await run_in_thread(_resolve, plan, name="apex_llm-botocore")
    except TimeoutError as error:
        raise MissingCredentialsError(
            f"The AWS profile {profile.name!r} ({needs}) gave no credentials within {_LIMIT_SECONDS:g} s.",
            retryable=True,
            hint=_compare(profile.name),
        ) from error


def _resolve(plan: _Plan) -> AwsCredentials:
    try:
        importlib.import_module(f"{plan.library}.session")
        with _silenced(plan.library):
            if plan.library == "aiobotocore":
                return asyncio.run(_resolve_async(plan))
            session = _configured(plan)
            held = session.get_credentials()
            return _value(plan, held, held.get_frozen_credentials() if held is not None else None)
    except ApexLlmError:
        raise
    except Exception as error:  # noqa: BLE001 - the border where botocore's errors are translated
        # botocore quotes what a command wrote to its standard error, so that error is not chained.
        raise _translated(error, plan) from (None if plan.needs == "credential_process" else error)


async def _resolve_async(plan: _Plan) -> AwsCredentials:
    async with asyncio.timeout(_LIMIT_SECONDS):
        session = _configured(plan)
        held = await session.get_credentials()
        return _value(plan, held, await held.get_frozen_credentials() if held is not None else None)


def _configured(plan: _Plan) -> Any:
    session: Any = importlib.import_module(f"{plan.library}.session").get_session()
    if plan.profile_from_argument:
        session.set_config_variable("profile", plan.profile)
    session.set_config_variable("config_file", plan.config_file)
    session.set_config_variable("credentials_file", plan.credentials_file)
    session.set_config_variable("region", plan.region)
    resolver: Any = session.get_component("credential_provider")
    for name in _LOCAL:
        resolver.remove(name)
    return session


def _value(plan: _Plan, held: Any, frozen: Any) -> AwsCredentials:
    source = f"profile {plan.profile!r} ({getattr(held, 'method', None) or plan.needs})"
    expiry = getattr(held, "_expiry_time", None)
    found = frozen and pair(
        frozen.access_key,
        frozen.secret_key,
        frozen.token,
        source=source,
        expires_at=expiry.timestamp() if expiry is not None else None,
    )
    if not found:
        raise MissingCredentialsError(
            f"The AWS profile {plan.profile!r} ({plan.needs}) gave no credentials.", hint=_compare(plan.profile)
        )
    return found


class _OtherThreadsOnly(logging.Filter):
    """Drops what this thread logs: at DEBUG botocore writes answers of STS out in full."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextlib.contextmanager
def _silenced(library: str) -> Generator[None]:
    import pkgutil

    names = {"asyncio", "urllib3.connectionpool"}
    for package in {library, "botocore"}:
        module = importlib.import_module(package)
        names.add(package)
        names.update(found.name for found in pkgutil.iter_modules(module.__path__, f"{package}."))
    guard = _OtherThreadsOnly()
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(guard)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(guard)


def _translated(error: Exception, plan: _Plan) -> ApexLlmError:
    """An error of botocore in our words. Texts that may quote a command's output are left out."""
    kind = type(error).__name__
    subject = f"The AWS profile {plan.profile!r} ({plan.needs})"
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _refused(cast("dict[str, Any]", response), subject, plan)
    if kind in _SSO or (kind == "InvalidConfigError" and "sso" in plan.needs):
        return MissingCredentialsError(
            f"{subject} has no valid SSO session: {kind}.", code=kind, hint=f"aws sso login --profile {plan.profile}"
        )
    if kind in _LOGIN:
        return MissingCredentialsError(
            f"{subject} has no valid login: {kind}.", code=kind, hint=f"aws login --profile {plan.profile}"
        )
    if kind in _NETWORK or isinstance(error, TimeoutError):
        return MissingCredentialsError(
            f"{subject}: the service that issues credentials could not be reached: {kind}.",
            code=kind,
            retryable=True,
            hint="Check the network, proxies, and the region of the profile.",
        )
    if isinstance(error, ImportError):
        return MissingCredentialsError(f"{subject}: {plan.library} cannot be imported.", code=kind, hint=_INSTALL)
    if plan.needs == "credential_process":
        return MissingCredentialsError(
            f"{subject} failed: {kind}.", code=kind, hint="Run the command by hand to see what it says."
        )
    safe = {"InvalidConfigError", "PartialCredentialsError", "InfiniteLoopConfigError", "UnknownCredentialError"}
    told = f"{kind}: {error}" if kind in safe else f"{kind}."
    return MissingCredentialsError(f"{subject} gave no credentials: {told}", code=kind, hint=_compare(plan.profile))


def _compare(profile: str) -> str:
    return f"Compare with what the AWS tools say: aws sts get-caller-identity --profile {profile}"


def _refused(response: dict[str, Any], subject: str, plan: _Plan) -> ApexLlmError:
    said: dict[str, Any] = response.get("Error") or {}
    facts: dict[str, Any] = response.get("ResponseMetadata") or {}
    code, status = str(said.get("Code", "")), facts.get("HTTPStatusCode")
    # A refused signature comes with the whole canonical request, on the lines that follow.
    told = str(said.get("Message", "")).strip().partition("\n")[0][:300]
    hint = None
    if "sso" in plan.needs:
        hint = f"aws sso login --profile {plan.profile}"
    elif code in {"AccessDenied", "AccessDeniedException"}:
        hint = "Let the role's trust policy name the caller, and the caller's policy allow sts:AssumeRole."
    elif code.startswith("ExpiredToken"):
        hint = "The credentials or the token that this profile starts from have expired; renew them."
    again = code.startswith(("Throttl", "IDPCommunication", "RequestLimit")) or (
        isinstance(status, int) and status >= 500
    )
    text = f"{subject} was refused: {told or 'no reason was given'}"
    request_id = facts.get("RequestId")
    if again:
        return MissingCredentialsError(text, code=code, status=status, request_id=request_id, retryable=True, hint=hint)
    return AuthenticationError(text, code=code, status=status, request_id=request_id, hint=hint)
