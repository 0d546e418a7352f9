"""``Emulator``: both clouds on one loopback port, served on a thread of its own.

A thread of its own, so that blocking clients can be tested in the same process, and so that
a client under test never shares an event loop with the server that it waits for.
"""

from __future__ import annotations

__all__ = ["Emulator"]

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from apex_llm.emulator.answers import Answer
from apex_llm.emulator.auth import AwsVerifier, AzureVerifier
from apex_llm.emulator.azure import AzureService
from apex_llm.emulator.bedrock import BedrockService
from apex_llm.emulator.faults.base import Fault
from apex_llm.emulator.faults.registry import find_fault
from apex_llm.emulator.listings import BedrockListings
from apex_llm.emulator.models import catalogue
from apex_llm.emulator.quota import TokenQuotas
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.script import Script, Scripted
from apex_llm.errors import ConfigurationError

if TYPE_CHECKING:
    from apex_llm.emulator.serving import ServerThread

_DEPLOYMENTS = {
    "chat": "gpt-4o",
    "gpt-4o": "gpt-4o",
    "gpt-4o-mini": "gpt-4o-mini",
    "gpt-4.1": "gpt-4.1",
    "gpt-5-mini": "gpt-5-mini",
    "o3-mini": "o3-mini",
    "embed": "text-embedding-3-small",
    "text-embedding-3-small": "text-embedding-3-small",
}
_PROFILES = {"emulated0001": "anthropic.claude-sonnet-4-6"}
_ACCOUNT = "123456789012"
_START_SECONDS = 10.0


class Emulator:
    """Bedrock and Azure OpenAI on loopback, strict about signatures, obedient to a script.

    ::

        async with Emulator() as emulator:      # or: with Emulator() as emulator:
            emulator.script("Hello", Answer.throttle(), Answer.cut(after_events=3))
            ...                                 # any Bedrock or Azure client, with emulator.environment
            assert emulator.requests[0].operation == "converse"

    Args:
        host: A loopback address to listen on.
        port: The port; 0 takes a free one.
        region: The AWS region that signatures must be made for.
        access_key_id: The one AWS key that is known.
        secret_access_key: Its secret.
        session_token: The token that must come with the key; ``None`` refuses any.
        bearer_token: Taken as a Bedrock API key, and as a Microsoft Entra token.
        api_key: The Azure key.
        deployments: Azure deployments: name to model. Replaces the usual ones.
        inference_profiles: Application inference profiles on Bedrock: 12-character id to model id.
        tokens_per_minute: Limits by deployment name or model id; what exceeds them is throttled.
        faults: Names of faults (``faults.FAULTS``) for the first calls, one each.
        fault_seed: Cut what faults write into random pieces, the same ones for the same seed.
        ssl_context: Serve TLS with it.
        page_size: Of the listings that have pages, where the caller names none.
        clock: Seconds since the epoch, to judge signatures and quotas by.
    """

    requests: list[RecordedRequest]
    """What arrived, in order; refused requests included."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        region: str = "us-east-1",
        access_key_id: str = "AKIDEMULATOR00000001",
        secret_access_key: str = "emulator/secret+access/key",  # noqa: S107 # opens nothing but this emulator
        session_token: str | None = None,
        bearer_token: str = "emulator-bearer-token",  # noqa: S107 # as above
        api_key: str = "emulator-api-key",
        deployments: Mapping[str, str] | None = None,
        inference_profiles: Mapping[str, str] | None = None,
        tokens_per_minute: Mapping[str, int] | None = None,
        faults: Sequence[str] = (),
        fault_seed: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        page_size: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not _is_loopback(host):
            raise ConfigurationError(
                f"The emulator listens on loopback only, not on {host!r}.", hint="Use 127.0.0.1 or ::1."
            )
        self.requests = []
        self.region = region
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.session_token = session_token
        self.bearer_token = bearer_token
        self.api_key = api_key
        self.deployments: dict[str, str] = dict(_DEPLOYMENTS if deployments is None else deployments)
        self.inference_profiles: dict[str, str] = dict(_PROFILES if inference_profiles is None else inference_profiles)
        self._host = host
        self._port = port
        self._page_size = page_size
        self._quotas = TokenQuotas(tokens_per_minute or {})
        self._clock = clock
        self._random = None if fault_seed is None else Random(fault_seed)
        self._ssl_context = ssl_context
        self._script = Script()
        for name in faults:
            self.fault(name)
        self._thread: ServerThread | None = None

    def script(self, *answers: Scripted, operation: str | None = None) -> None:
        """Queue the next answers, first in, first out.

        Args:
            answers: Each an ``Answer``, a text, or a function of the recorded request that gives one.
            operation: Answer only this operation, such as ``list-foundation-models`` or ``embeddings``.
                Without it the answers go to whichever chat or text call comes next, on either cloud.
        """
        self._script.add(answers, operation=operation)

    def fault(self, fault: str | Fault, answer: Answer | str | None = None, *, times: int | None = 1) -> None:
        """Let the next call meet a fault; calls that it cannot strike get the good answer.

        Args:
            fault: The name of one of ``faults.FAULTS``, or a ``Fault`` of your own.
            answer: The good answer that the fault spoils.
            times: How many calls meet it; ``None`` plays it to every call for which nothing else is scripted,
                in turn with others of the kind.

        Raises:
            ConfigurationError: There is no such fault.
        """
        spoiler = find_fault(fault) if isinstance(fault, str) else fault
        good = answer if isinstance(answer, Answer) else Answer.text() if answer is None else Answer.text(answer)
        spoiled = msgspec.structs.replace(good, spoiled_by=spoiler)
        if times is None:
            self._script.repeat([*self._script.standing, spoiled])
        else:
            self._script.add((spoiled,) * times, operation=None)

    def reset(self) -> None:
        """Forget the recorded requests and the answers that wait."""
        self._script.clear()
        self.requests.clear()

    @property
    def waiting_answers(self) -> int:
        """How many scripted answers nobody has used yet."""
        return len(self._script)

    @property
    def url(self) -> str:
        """Scheme, host and port, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._ssl_context is None else 'https'}://{host}:{self._port}"

    @property
    def bedrock_url(self) -> str:
        """The endpoint for Bedrock clients, runtime and control plane alike."""
        return self.url

    @property
    def azure_url(self) -> str:
        """The endpoint for Azure clients; ``/openai/v1/`` below it for plain OpenAI clients."""
        return self.url

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point any Bedrock or Azure client here."""
        variables = {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.bedrock_url,
            "AWS_ENDPOINT_URL_BEDROCK": self.bedrock_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AZURE_OPENAI_ENDPOINT": self.azure_url,
            "AZURE_OPENAI_API_KEY": self.api_key,
            "OPENAI_API_VERSION": "2024-10-21",
        }
        if self.session_token is not None:
            variables["AWS_SESSION_TOKEN"] = self.session_token
        return variables

    @property
    def conflicting_variables(self) -> Sequence[str]:
        """Variables that clients prefer to those of ``environment``, so that they must not be set."""
        names = ["AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_VERSION"]
        return [*names, "AWS_SESSION_TOKEN"] if self.session_token is None else names

    def start(self) -> Self:
        """Listen and serve; returns when requests can be made.

        Raises:
            ConfigurationError: The extra is missing, the port is taken, or it was started already.
        """
        if self._thread is not None:
            raise ConfigurationError("This emulator is running already.")
        try:
            from apex_llm.emulator.app import create_application
            from apex_llm.emulator.serving import ServerThread
        except ImportError as error:
            raise ConfigurationError(
                f"The emulator needs a package that is not installed: {error.name}.",
                hint="Install it with: pip install 'apex-llm[emulator]'.",
            ) from error
        listener = self._listen()
        self._port = listener.getsockname()[1]
        bedrock, azure = self._services()
        application = create_application(
            bedrock=bedrock,
            azure=azure,
            script=self._script,
            quotas=self._quotas,
            requests=self.requests,
            clock=self._clock,
            random=self._random,
        )
        thread = ServerThread(application, listener, ssl_context=self._ssl_context)
        thread.start()
        if not thread.ready.wait(_START_SECONDS) or thread.failure is not None:
            raise ConfigurationError(f"The emulator did not start: {thread.failure!r}.") from thread.failure
        self._thread = thread
        return self

    def close(self) -> None:
        """Close all connections and stop serving. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"Emulator({self.url}, {len(self.requests)} requests, {'running' if self._thread else 'stopped'})"

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(1024)
            listener.settimeout(0)
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"The emulator cannot listen on {self._host}, port {self._port}: {error.strerror}.",
                hint="Choose another port, or 0 for a free one.",
            ) from error
        return listener

    def _services(self) -> tuple[BedrockService, AzureService]:
        models = catalogue()
        bedrock = BedrockService(
            verifier=AwsVerifier(
                access_key_id=self.access_key_id,
                secret_access_key=self.secret_access_key,
                session_token=self.session_token,
                bearer_token=self.bearer_token,
                region=self.region,
            ),
            models=models,
            listings=BedrockListings(
                region=self.region,
                account=_ACCOUNT,
                models=models,
                profiles=self.inference_profiles,
                page_size=self._page_size,
            ),
            clock=self._clock,
        )
        azure = AzureService(
            verifier=AzureVerifier(api_key=self.api_key, bearer_token=self.bearer_token),
            deployments=self.deployments,
            clock=self._clock,
        )
        return bedrock, azure


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
