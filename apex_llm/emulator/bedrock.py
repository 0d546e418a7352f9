"""The emulated Amazon Bedrock: addresses, model ids, errors and operations.

Bodies are written by ``converse``, ``claude`` and ``listings``; this module knows which
of them answers, and how the service says no.
"""

from __future__ import annotations

__all__ = ["BedrockService"]

import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from apex_llm.emulator import claude, converse
from apex_llm.emulator.answers import Answer
from apex_llm.emulator.auth import AwsVerifier
from apex_llm.emulator.defaults import Call, default_answer
from apex_llm.emulator.failures import bedrock_failure, bedrock_retry_headers
from apex_llm.emulator.listings import BedrockListings
from apex_llm.emulator.models import GEOGRAPHIES, BedrockModel
from apex_llm.emulator.native import NativeModels
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Refusal, Reply, compact, event_frame, exception_frame, mapping

_CORAL = "http://internal.amazon.com/coral/com.amazon.bedrock/"
_EVENT_STREAM = "application/vnd.amazon.eventstream"
_INFERENCE = {
    "converse": "converse",
    "converse-stream": "converse-stream",
    "invoke": "invoke",
    "invoke-with-response-stream": "invoke-stream",
    "count-tokens": "count-tokens",
}
_ARN = re.compile(r"arn:aws(?:-[a-z-]+)?:(?:bedrock|sagemaker):[a-z0-9-]*:\d{0,12}:(?P<kind>[a-z-]+)/(?P<id>.+)")
_STREAM_EXCEPTIONS = frozenset({
    "internalServerException", "modelStreamErrorException", "validationException", "throttlingException",
    "serviceUnavailableException", "modelTimeoutException",
})  # fmt: skip
_BLOCKED = "Sorry, the model cannot answer this question."


class BedrockService:
    """Runtime and control plane of one region and account, as far as they are emulated."""

    def __init__(
        self,
        *,
        verifier: AwsVerifier,
        models: dict[str, BedrockModel],
        listings: BedrockListings,
        clock: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._models = models
        self._listings = listings
        self._native = NativeModels()
        self._clock = clock

    def identify(self, request: RecordedRequest) -> None:
        """Set ``operation`` and ``model`` of a request from its path; leave them empty where nobody serves it."""
        segments = request.path.split("/")
        if len(segments) == 4 and segments[1] == "model" and request.method == "POST":
            request.operation = _INFERENCE.get(segments[3], "")
            request.model = unquote(segments[2])
        elif request.method == "GET":
            request.operation, request.model = self._listings.identify(request.path)

    def authenticate(self, request: RecordedRequest) -> None:
        """Raise ``Refusal`` unless the caller is who it says it is."""
        self._verifier.verify(request, now=self._clock())

    def scriptable(self, operation: str) -> bool:
        """Whether answers queued for no operation in particular may be played here."""
        return operation in {"converse", "converse-stream", "invoke", "invoke-stream"}

    def prepare(self, request: RecordedRequest) -> Call | Reply:
        """Check a request: the call that an answer is needed for, or the reply where none is.

        Raises:
            Refusal: Where the service refuses it.
        """
        if not request.operation:
            raise Refusal(404, "UnknownOperationException", "")
        if request.method == "GET":
            return self._listings.reply(request)
        body = request.json
        if not isinstance(body, dict):
            raise Refusal(400, "SerializationException", "The request body is not a JSON object.")
        content = mapping(body)
        model = self._resolve(request.model)
        bare = _bare(request.model) if model is None else model.id
        if model is None and "anthropic_version" in content:
            bare = "anthropic.custom"  # an ARN does not tell the family, but the body does
        match request.operation:
            case "converse" | "converse-stream":
                converse.check_request(content, model=model, stream=request.operation == "converse-stream")
                claude.refuse_sampling(mapping(content.get("inferenceConfig")), model=bare)
                claude.refuse_sampling(mapping(content.get("additionalModelRequestFields")), model=bare)
                return converse.read_call(content, model=bare)
            case "count-tokens":
                return self._count(request.model, content)
            case _:
                if bare.startswith("anthropic."):
                    claude.check_request(content, model=bare)
                    return claude.read_call(content, model=bare)
                return self._native.read_call(content, model=bare)

    def write(self, answer: Answer | None, call: Call, request: RecordedRequest) -> Reply:
        """An answer (``None``: the emulator's own) as this operation sends it."""
        stream = request.operation.endswith("-stream")
        converses = request.operation.startswith("converse")
        is_claude = call.model.startswith("anthropic.")
        if answer is None:
            if not converses and not is_claude:
                return self._native.write_default(call, stream=stream)
            answer = default_answer(call)
        if answer.filtered is not None and answer.filtered_where == "prompt":
            answer = Answer.text(_BLOCKED, finish="guardrail")
        if answer.failure is not None and answer.failure.inside_stream_after is None:
            return self._failed(answer)
        if not stream:
            if answer.failure is not None:
                return self._failed(answer)
            if answer.body is not None:
                return Reply(status=answer.status, content_type=answer.content_type, body=answer.body)
            if not converses and not is_claude:
                return self._native.write(answer, call)
            written = converse.write_response(answer, call) if converses else claude.write_response(answer, call)
            return Reply(body=compact(written), headers=() if converses else _counts(written))
        if answer.body is not None:
            return Reply(status=answer.status, content_type=answer.content_type, body=answer.body)
        terminal: int | None = None
        if answer.payloads is not None:
            parts = tuple(_framed(payload, index, converses=converses) for index, payload in enumerate(answer.payloads))
        elif converses:
            parts, terminal = converse.write_stream(answer, call)
        elif is_claude:
            parts, terminal = claude.write_stream(answer, call)
        else:
            parts, terminal = self._native.write_stream(answer, call)
        if answer.failure is not None:
            parts = (*parts[: answer.failure.inside_stream_after], self._exception(answer))
        headers = () if converses else (("x-amzn-bedrock-content-type", "application/json"),)
        return Reply(content_type=_EVENT_STREAM, headers=headers, parts=parts, terminal=terminal)

    def refuse(self, refusal: Refusal, request: RecordedRequest) -> Reply:
        """A refusal in AWS's words."""
        if refusal.code == "UnknownOperationException":
            return Reply(
                status=404,
                headers=(("x-amzn-errortype", refusal.code),),
                body=b"<UnknownOperationException/>\n",
                content_type="application/xml",
            )
        # Front-end errors spell the member with a capital letter.
        name = "Message" if refusal.message.startswith("Authentication failed") else "message"
        return self._error(refusal.status, refusal.code, compact({name: refusal.message, **refusal.members}))

    def usual_headers(self, request: RecordedRequest) -> tuple[tuple[str, str], ...]:
        """On every answer."""
        return (("x-amzn-requestid", str(uuid.uuid4())),)

    def _failed(self, answer: Answer) -> Reply:
        assert answer.failure is not None
        worded = bedrock_failure(answer.failure)
        members: dict[str, Any] = {"message": worded.message}
        if worded.code in {"ModelErrorException", "ModelStreamErrorException"}:
            members["originalStatusCode"] = 500
        reply = self._error(worded.status, worded.code, compact(members))
        reply.headers = (*reply.headers, *bedrock_retry_headers(answer.failure))
        return reply

    def _exception(self, answer: Answer) -> bytes:
        assert answer.failure is not None
        worded = bedrock_failure(answer.failure)
        name = worded.code[:1].lower() + worded.code[1:]
        if answer.failure.code is None and name not in _STREAM_EXCEPTIONS:
            name = "internalServerException"
        return exception_frame(name, compact({"message": worded.message}))

    def _error(self, status: int, code: str, body: bytes) -> Reply:
        return Reply(status=status, headers=(("x-amzn-errortype", f"{code}:{_CORAL}"),), body=body)

    def _resolve(self, identifier: str) -> BedrockModel | None:
        """The model behind an id; ``None`` where an ARN does not tell it."""
        bare = identifier
        geography = None
        arn = _ARN.fullmatch(identifier)
        if arn is not None:
            if arn["kind"] not in {"foundation-model", "inference-profile"}:
                if arn["kind"] == "application-inference-profile":
                    return self._listings.application_model(identifier)
                return None
            bare = arn["id"]
        for prefix in GEOGRAPHIES:
            if bare.startswith(prefix + "."):
                geography, bare = prefix, bare[len(prefix) + 1 :]
                break
        model = self._models.get(bare)
        if model is None or (geography is not None and geography not in model.geographies):
            raise Refusal(400, "ValidationException", "The provided model identifier is invalid.")
        if model.lifecycle == "retired":
            raise Refusal(
                404,
                "ResourceNotFoundException",
                "This model version has reached the end of its life. Please refer to the AWS "
                "documentation for more details.",
            )
        if model.profile_only and geography is None:
            raise Refusal(
                400,
                "ValidationException",
                f"Invocation of model ID {identifier} with on-demand throughput isn\u2019t supported. "
                "Retry your request "
                "with the ID or ARN of an inference profile that contains this model.",
            )
        return model

    def _count(self, model: str, body: dict[str, Any]) -> Reply:
        if _bare(model) != model:
            raise Refusal(400, "ValidationException", "The provided model doesn't support counting tokens.")
        asked = mapping(body.get("input"))
        if "converse" in asked:
            call = converse.read_call(mapping(asked["converse"]), model=model)
        else:
            call = claude.read_call(
                self._native.decode_body(mapping(asked.get("invokeModel")).get("body")), model=model
            )
        return Reply(body=compact({"inputTokens": max(1, -(-len(call.everything) // 4))}))


def _bare(identifier: str) -> str:
    """The foundation model's id, as far as the text tells it."""
    arn = _ARN.fullmatch(identifier)
    bare = identifier if arn is None else arn["id"]
    for prefix in GEOGRAPHIES:
        if bare.startswith(prefix + "."):
            return bare[len(prefix) + 1 :]
    return bare


def _counts(written: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    usage = mapping(written.get("usage"))
    return (
        ("x-amzn-bedrock-input-token-count", str(usage.get("input_tokens", 0))),
        ("x-amzn-bedrock-output-token-count", str(usage.get("output_tokens", 0))),
        ("x-amzn-bedrock-cache-read-input-token-count", str(usage.get("cache_read_input_tokens", 0))),
        ("x-amzn-bedrock-invocation-latency", "412"),
    )


def _framed(payload: bytes, index: int, *, converses: bool) -> bytes:
    if not converses:
        return claude.chunk(payload, index)
    import json

    event = mapping(json.loads(payload))
    name, inner = next(iter(event.items()))
    return event_frame(name, compact(inner))
