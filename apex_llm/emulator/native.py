"""InvokeModel for families other than Claude: embeddings, and the simpler text formats.

Follows the parameter pages of each family. What a family's own answer would be and is not
written here can be scripted with ``Answer.json`` and ``Answer.stream``.
"""

from __future__ import annotations

__all__ = ["NativeModels", "embedding_vector"]

import base64
import hashlib
import json
import math
import struct
from typing import Any

import msgspec

from apex_llm.emulator import converse, openai_format
from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock
from apex_llm.emulator.claude import chunk
from apex_llm.emulator.converse import output_tokens
from apex_llm.emulator.defaults import Call, count_tokens, default_answer
from apex_llm.emulator.wire import Refusal, Reply, compact, int_of, list_of, mapping, text_of

_CREATED = 1_768_435_200
_MOST_DIMENSIONS = 4096


def embedding_vector(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on nothing but the text: equal texts, equal vectors."""
    seed = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    values = [number / 2**31 - 1.0 for number in struct.unpack(f">{dimensions}I", seed)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _dimensions(value: Any, usual: int) -> int:
    number = int_of(value)
    return number if number is not None and 0 < number <= _MOST_DIMENSIONS else usual


class NativeModels:
    """Bodies of the families that have no module of their own."""

    def read_call(self, body: dict[str, Any], *, model: str) -> Call:
        """The request, as far as an answer depends on it."""
        if model.startswith("amazon.titan-embed"):
            self._check_titan_embed(body)
            return Call(model=model, prompt=text_of(body.get("inputText")), everything=compact(body).decode())
        if model.startswith("cohere.embed"):
            texts = [text_of(text) for text in list_of(body.get("texts"))]
            if not text_of(body.get("input_type")):
                raise Refusal(
                    400, "ValidationException", "Malformed input request: #: required key [input_type] not found"
                )
            return Call(model=model, prompt="\n".join(texts), everything=compact(body).decode())
        if model.startswith("amazon.nova"):
            return converse.read_call(body, model=model)
        if "messages" in body:
            return openai_format.read_call(body, model=model)
        prompt = text_of(body.get("prompt")) or text_of(body.get("inputText"))
        limit: Any = body.get("max_gen_len") or body.get("max_tokens") or body.get("max_completion_tokens")
        return Call(model=model, prompt=prompt, everything=prompt, max_tokens=int_of(limit))

    def write_default(self, call: Call, *, stream: bool) -> Reply:
        """The emulator's own answer: vectors for embedding models, an echo for the rest."""
        if ".titan-embed" in call.model or ".embed" in call.model:
            return self._embeddings(call)
        answer = default_answer(call)
        if not stream:
            return self.write(answer, call)
        parts, terminal = self.write_stream(answer, call)
        return Reply(
            content_type="application/vnd.amazon.eventstream",
            headers=(("x-amzn-bedrock-content-type", "application/json"),),
            parts=parts,
            terminal=terminal,
        )

    def write(self, answer: Answer, call: Call) -> Reply:
        """An answer, whole."""
        answer = _with_tagged_reasoning(answer, call)
        if ".titan-embed" in call.model or ".embed" in call.model:
            return self._embeddings(call)
        text = _text(answer)
        read = answer.usage.input or max(1, count_tokens(call.everything))
        written = answer.usage.output or output_tokens(answer)
        body: dict[str, Any]
        match _family(call.model):
            case "nova":
                body = converse.write_response(answer, call)
            case "llama":
                body = {
                    "generation": text,
                    "prompt_token_count": read,
                    "generation_token_count": written,
                    "stop_reason": "length" if answer.finish == "length" else "stop",
                }
            case "mistral-text":
                body = {"outputs": [{"text": text, "stop_reason": openai_format.stop_reason(answer)}]}
            case "titan-text":
                reason = "LENGTH" if answer.finish == "length" else "FINISH"
                result = {"tokenCount": written, "outputText": text, "completionReason": reason}
                body = {"inputTextTokenCount": read, "results": [result]}
            case _:
                body = {
                    "id": "chatcmpl-emulated0001",
                    "object": "chat.completion",
                    "created": _CREATED,
                    "model": call.model,
                    "choices": [
                        {
                            "index": 0,
                            "message": openai_format.message(answer),
                            "finish_reason": openai_format.stop_reason(answer),
                        }
                    ],
                    "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
                }
        return Reply(body=compact(body), headers=_counts(read, written))

    def write_stream(self, answer: Answer, call: Call) -> tuple[tuple[bytes, ...], int]:
        """An answer in chunks, and the index of the last, which carries the metrics."""
        answer = _with_tagged_reasoning(answer, call)
        read = answer.usage.input or max(1, count_tokens(call.everything))
        written = answer.usage.output or output_tokens(answer)
        events = _events(_family(call.model), answer, call, read=read, written=written)
        events[-1]["amazon-bedrock-invocationMetrics"] = {
            "inputTokenCount": read,
            "outputTokenCount": written,
            "invocationLatency": 412,
            "firstByteLatency": 97,
        }
        return tuple(chunk(compact(event), index) for index, event in enumerate(events)), len(events) - 1

    def decode_body(self, value: Any) -> dict[str, Any]:
        """The native body inside CountTokens."""
        try:
            return mapping(json.loads(base64.b64decode(text_of(value), validate=True)))
        except ValueError:
            raise Refusal(400, "ValidationException", "The body of invokeModel is not base64 of JSON.") from None

    def _check_titan_embed(self, body: dict[str, Any]) -> None:
        for name in body:
            if name not in {"inputText", "inputImage", "dimensions", "normalize", "embeddingTypes", "embeddingConfig"}:
                raise Refusal(
                    400,
                    "ValidationException",
                    f"Malformed input request: extraneous key [{name}] is not permitted, please reformat "
                    "your input and try again.",
                )
        if not body.get("inputText") and not body.get("inputImage"):
            raise Refusal(
                400,
                "ValidationException",
                "Malformed input request: expected minLength: 1, actual: 0, please reformat your input and try again.",
            )

    def _embeddings(self, call: Call) -> Reply:
        body = mapping(json.loads(call.everything))
        tokens = max(1, count_tokens(call.prompt))
        if call.model.startswith("cohere."):
            texts = [text_of(text) for text in list_of(body.get("texts"))]
            vectors = [embedding_vector(text, _dimensions(body.get("output_dimension"), 1024)) for text in texts]
            types = list_of(body.get("embedding_types"))
            written: dict[str, Any] = {
                "id": "00000000-0000-4000-8000-000000000001",
                "texts": texts,
                "embeddings": {"float": vectors} if types else vectors,
                "response_type": "embeddings_by_type" if types else "embeddings_floats",
            }
            return Reply(body=compact(written), headers=(("x-amzn-bedrock-input-token-count", str(tokens)),))
        dimensions = body.get("dimensions")
        if dimensions is not None and dimensions not in (256, 384, 512, 1024):
            raise Refusal(
                400,
                "ValidationException",
                "Malformed input request: #/dimensions: not a valid enum value, "
                "please reformat your input and try again.",
            )
        usual = 1536 if call.model.endswith("text-v1") else 1024
        vector = embedding_vector(call.prompt, dimensions or usual)
        written = {"embedding": vector, "inputTextTokenCount": tokens}
        if "text-v2" in call.model:
            written["embeddingsByType"] = {"float": vector}
        return Reply(body=compact(written), headers=(("x-amzn-bedrock-input-token-count", str(tokens)),))


def _family(model: str) -> str:
    if model.startswith("amazon.nova"):
        return "nova"
    if model.startswith("meta."):
        return "llama"
    if model.startswith("amazon.titan-text"):
        return "titan-text"
    if model.startswith(("mistral.mistral-7b", "mistral.mixtral", "mistral.mistral-large-2402")):
        return "mistral-text"
    return "openai"


def _with_tagged_reasoning(answer: Answer, call: Call) -> Answer:
    """gpt-oss has no member for reasoning here: it comes in tags, as text."""
    if not call.model.startswith("openai.gpt-oss"):
        return answer
    blocks = tuple(
        TextBlock(f"<reasoning>{block.text}</reasoning>", ("<reasoning>", *block.pieces, "</reasoning>"))
        if isinstance(block, ReasoningBlock)
        else block
        for block in answer.blocks
    )
    return msgspec.structs.replace(answer, blocks=blocks)


def _text(answer: Answer) -> str:
    return "".join(block.text for block in answer.blocks if isinstance(block, TextBlock))


def _events(family: str, answer: Answer, call: Call, *, read: int, written: int) -> list[dict[str, Any]]:
    length = answer.finish == "length"
    if family == "nova":
        return [{name: payload} for name, payload in converse.stream_events(answer, call)[0]]
    if family == "openai":
        return _openai_events(answer, call)
    pieces = [piece for block in answer.blocks if isinstance(block, TextBlock) for piece in block.pieces]
    if family == "llama":
        events: list[dict[str, Any]] = [
            {
                "generation": piece,
                "prompt_token_count": read if index == 0 else None,
                "generation_token_count": index + 1,
                "stop_reason": None,
            }
            for index, piece in enumerate(pieces)
        ]
        stop = "length" if length else "stop"
        ending = {"generation": "", "prompt_token_count": None, "generation_token_count": written, "stop_reason": stop}
        return [*events, ending]
    if family == "mistral-text":
        events = [{"outputs": [{"text": piece, "stop_reason": None}]} for piece in pieces]
        return [*events, {"outputs": [{"text": "", "stop_reason": openai_format.stop_reason(answer)}]}]
    events = [{"outputText": piece, "index": 0, "completionReason": None} for piece in pieces]
    return [*events, {"outputText": "", "index": 0, "completionReason": "LENGTH" if length else "FINISH"}]


def _openai_events(answer: Answer, call: Call) -> list[dict[str, Any]]:
    usual = {
        "id": "chatcmpl-emulated0001",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": call.model,
        "service_tier": None,
        "system_fingerprint": None,
    }
    choices: list[dict[str, Any]] = [
        {"delta": delta, "finish_reason": None, "index": 0} for delta in openai_format.deltas(answer)
    ]
    choices.append({"delta": dict[str, Any](), "finish_reason": openai_format.stop_reason(answer), "index": 0})
    return [{**usual, "choices": [choice]} for choice in choices]


def _counts(read: int, written: int) -> tuple[tuple[str, str], ...]:
    return (
        ("x-amzn-bedrock-input-token-count", str(read)),
        ("x-amzn-bedrock-output-token-count", str(written)),
        ("x-amzn-bedrock-invocation-latency", "412"),
    )
