"""The emulated Azure OpenAI: both path styles, versions, keys, deployments and errors.

Chat bodies are written by ``azure_chat``, model lists by ``listings``.
"""

from __future__ import annotations

__all__ = ["DATED_VERSIONS", "AzureService"]

import base64
import re
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from apex_llm.emulator import azure_chat, azure_checks, openai_format
from apex_llm.emulator.answers import Answer, Failure
from apex_llm.emulator.auth import AzureVerifier
from apex_llm.emulator.defaults import Call, count_tokens, default_answer
from apex_llm.emulator.failures import azure_failure, azure_retry_headers
from apex_llm.emulator.listings import azure_base_models, azure_deployments, openai_models
from apex_llm.emulator.native import embedding_vector
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Refusal, Reply, compact, data_event, int_of, list_of, mapping, text_of

DATED_VERSIONS = frozenset({
    "2022-12-01", "2023-05-15", "2023-06-01-preview", "2023-07-01-preview", "2023-08-01-preview", "2023-09-01-preview",
    "2023-12-01-preview", "2024-02-01", "2024-02-15-preview", "2024-03-01-preview", "2024-04-01-preview",
    "2024-05-01-preview", "2024-06-01", "2024-07-01-preview", "2024-08-01-preview", "2024-09-01-preview",
    "2024-10-01-preview", "2024-10-21", "2024-12-01-preview", "2025-01-01-preview", "2025-02-01-preview",
    "2025-03-01-preview", "2025-04-01-preview",
})  # fmt: skip
_DEPLOYMENT_LIST_VERSIONS = frozenset({"2022-03-01-preview", "2022-06-01-preview", "2023-03-15-preview"})
_DEPLOYMENT_PATH = re.compile(r"/openai/deployments/(?P<deployment>[^/]+)/(?P<operation>chat/completions|embeddings)")
_OPERATIONS = {"chat/completions": "chat", "embeddings": "embeddings"}
_V1 = "/openai/v1/"


class AzureService:
    """One Azure OpenAI resource with its deployments."""

    def __init__(self, *, verifier: AzureVerifier, deployments: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._verifier = verifier
        self._deployments = deployments
        self._clock = clock

    def identify(self, request: RecordedRequest) -> None:
        """Set ``operation`` and ``model`` of a request; leave them empty where nobody serves its path."""
        path = request.path
        if path.startswith(_V1):
            operation = path[len(_V1) :]
            if request.method == "POST" and operation in _OPERATIONS:
                request.operation = _OPERATIONS[operation]
                request.model = text_of(mapping(request.json).get("model"))
            elif request.method == "GET" and operation == "models":
                request.operation = "list-models"
            return
        match = _DEPLOYMENT_PATH.fullmatch(path)
        if match is not None and request.method == "POST":
            request.operation = _OPERATIONS[match["operation"]]
            request.model = unquote(match["deployment"])
        elif request.method == "GET" and path == "/openai/deployments":
            request.operation = "list-deployments"
        elif request.method == "GET" and path == "/openai/models":
            request.operation = "list-models"

    def authenticate(self, request: RecordedRequest) -> None:
        """Raise ``Refusal`` unless the caller is who it says it is."""
        self._verifier.verify(request, v1=request.path.startswith(_V1))

    def scriptable(self, operation: str) -> bool:
        """Whether answers queued for no operation in particular may be played here."""
        return operation == "chat"

    def prepare(self, request: RecordedRequest) -> Call | Reply:
        """Check a request: the call that an answer is needed for, or the reply where none is.

        Raises:
            Refusal: Where the service refuses it.
        """
        version = self._version(request)
        if not request.operation:
            raise _not_found()
        if request.method == "GET":
            return self._list(request, version)
        if request.model not in self._deployments:
            worded = azure_failure(Failure(kind="not_found"), model=request.model)
            raise Refusal(worded.status, worded.code, worded.message)
        body = request.json
        if not isinstance(body, dict):
            raise Refusal(400, "BadRequest", "The request body is not a JSON object.")
        model = self._deployments[request.model]
        if (request.operation == "embeddings") != ("embedding" in model):
            operation = "embeddings" if request.operation == "embeddings" else "chatCompletion"
            raise Refusal(
                400,
                "OperationNotSupported",
                f"The {operation} operation does not work with the specified model, {model}. Please choose "
                "different model and "
                "try again.",
            )
        if request.operation == "embeddings":
            return self._embeddings(mapping(body), model)
        context = azure_checks.Context(model=model, version=version, created=int(self._clock()))
        azure_checks.check_request(mapping(body), context=context)
        return openai_format.read_call(mapping(body), model=model)

    def write(self, answer: Answer | None, call: Call, request: RecordedRequest) -> Reply:
        """An answer (``None``: the emulator's own) as this call asks for it."""
        body = mapping(request.json)
        stream = body.get("stream") is True
        answer = default_answer(call) if answer is None else answer
        if answer.filtered is not None and answer.filtered_where == "prompt":
            worded = azure_failure(Failure(kind="content_filter"), model=request.model)
            members = azure_chat.filter_error(answer.filtered)
            return self._error(worded.status, {"message": worded.message, "code": worded.code, **members})
        failure = answer.failure
        if failure is not None and (failure.inside_stream_after is None or not stream):
            worded = azure_failure(failure, model=request.model)
            members = azure_chat.filter_error("violence") if worded.code == "content_filter" else {}
            reply = self._error(worded.status, {"code": worded.code, "message": worded.message, **members})
            reply.headers = (*reply.headers, *azure_retry_headers(failure))
            return reply
        if answer.body is not None:
            return Reply(status=answer.status, content_type=answer.content_type, body=answer.body)
        context = self._context(request)
        if not stream:
            written = azure_chat.write_response(answer, call, context=context)
            return Reply(body=compact(written), headers=_rate_limits())
        terminal: int | None = None
        if answer.payloads is not None:
            parts = tuple(data_event(payload) for payload in answer.payloads)
        else:
            options = mapping(body.get("stream_options"))
            parts, terminal = azure_chat.write_stream(answer, call, context=context, options=options)
        if failure is not None:
            worded = azure_failure(failure, model=request.model)
            error = {"code": worded.code, "message": worded.message, "type": None, "param": None}
            parts = (*parts[: failure.inside_stream_after], data_event(compact({"error": error})))
        return Reply(
            content_type="text/event-stream; charset=utf-8", headers=_rate_limits(), parts=parts, terminal=terminal
        )

    def refuse(self, refusal: Refusal, request: RecordedRequest) -> Reply:
        """A refusal in Azure's words."""
        error: dict[str, Any] = {"code": refusal.code or None, "message": refusal.message, **refusal.members}
        return self._error(refusal.status, error)

    def usual_headers(self, request: RecordedRequest) -> tuple[tuple[str, str], ...]:
        """On every answer."""
        headers = [
            ("apim-request-id", str(uuid.uuid4())),
            ("x-request-id", str(uuid.uuid4())),
            ("x-ms-region", "East US"),
            ("x-content-type-options", "nosniff"),
        ]
        client_id = request.headers.get("x-ms-client-request-id")
        if client_id is not None:
            headers.append(("x-ms-client-request-id", client_id))
        return tuple(headers)

    def _error(self, status: int, error: dict[str, Any]) -> Reply:
        return Reply(status=status, body=compact({"error": error}))

    def _version(self, request: RecordedRequest) -> str:
        version = request.query.get("api-version")
        if request.path.startswith(_V1):
            if version not in {None, "v1", "preview", "latest"}:
                raise _unsupported_version()
            return "v1"
        if not version:
            raise _not_found()
        if request.operation == "list-deployments":
            # The list was taken away from later versions, which answer as if the path did not exist.
            if version in _DEPLOYMENT_LIST_VERSIONS:
                return version
            if version in DATED_VERSIONS:
                raise _not_found()
        if version not in DATED_VERSIONS:
            raise _unsupported_version()
        if request.operation == "chat" and version == "2022-12-01":
            raise _not_found()
        return version

    def _context(self, request: RecordedRequest) -> azure_checks.Context:
        return azure_checks.Context(
            model=self._deployments[request.model],
            version=self._version(request),
            created=int(self._clock()),
            choices=int_of(mapping(request.json).get("n")) or 1,
        )

    def _list(self, request: RecordedRequest, version: str) -> Reply:
        if request.operation == "list-deployments":
            return azure_deployments(self._deployments)
        models = sorted(set(self._deployments.values()))
        return openai_models(models) if version == "v1" else azure_base_models(models)

    def _embeddings(self, body: dict[str, Any], model: str) -> Reply:
        given = body.get("input")
        texts = [given] if isinstance(given, str) else list_of(given)
        if not texts or any(text == "" for text in texts):
            raise Refusal(
                400,
                "",
                "'$.input' is invalid. Please check the API reference.",
                type="invalid_request_error",
                param=None,
            )
        most = 3072 if model.endswith("large") else 1536
        dimensions = int_of(body.get("dimensions")) or most
        if not 0 < dimensions <= most:
            raise Refusal(
                400,
                "",
                f"Invalid value for 'dimensions': {dimensions}.",
                type="invalid_request_error",
                param="dimensions",
            )
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            vector: Any = embedding_vector(str(text), dimensions)
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        tokens = sum(max(1, count_tokens(str(text))) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply(
            body=compact({"object": "list", "data": data, "model": model, "usage": usage}), headers=_rate_limits()
        )


def _rate_limits() -> tuple[tuple[str, str], ...]:
    return (
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-limit-tokens", "50000"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-remaining-tokens", "49900"),
    )


def _not_found() -> Refusal:
    return Refusal(404, "404", "Resource not found")


def _unsupported_version() -> Refusal:
    return Refusal(400, "BadRequest", "API version not supported")
