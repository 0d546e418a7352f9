"""Azure OpenAI chat completions, the server's side: how an answer is written.

Follows the OpenAPI document 2024-10-21 and recorded answers. What is
refused is ``azure_checks``'s business.
"""

from __future__ import annotations

__all__ = ["filter_error", "write_response", "write_stream"]

from typing import Any

from apex_llm.emulator.answers import Answer, TextBlock
from apex_llm.emulator.azure_checks import Context
from apex_llm.emulator.converse import padding
from apex_llm.emulator.defaults import Call
from apex_llm.emulator.openai_format import deltas, message, stop_reason, usage
from apex_llm.emulator.wire import compact, data_event

_SAFE = {"filtered": False, "severity": "safe"}
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")


def write_response(answer: Answer, call: Call, *, context: Context) -> dict[str, Any]:
    """The body of an unstreamed answer; every choice that was asked for says the same."""
    text = any(isinstance(block, TextBlock) for block in answer.blocks)
    choices: list[dict[str, Any]] = [
        {
            "content_filter_results": _results(answer) if text or answer.filtered else {},
            "finish_reason": stop_reason(answer),
            "index": index,
            "logprobs": None,
            "message": {"annotations": list[Any](), **message(answer), "refusal": None},
        }
        for index in range(context.choices)
    ]
    return {
        "choices": choices,
        "created": context.created,
        "id": "chatcmpl-Emulated0001",
        "model": _snapshot(context.model),
        "object": "chat.completion",
        "prompt_filter_results": _prompt_results(),
        "system_fingerprint": "fp_emulated00",
        "usage": usage(answer, call),
    }


def write_stream(
    answer: Answer, call: Call, *, context: Context, options: dict[str, Any]
) -> tuple[tuple[bytes, ...], int]:
    """The server-sent events of a streamed answer, and the index of the chunk with the finish reason.

    Args:
        answer: What is said.
        call: What was asked.
        context: Model, version and time.
        options: The request's ``stream_options``.
    """
    prompt: dict[str, Any] = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": _prompt_results(),
    }
    usual: dict[str, Any] = {
        "created": context.created,
        "id": "chatcmpl-Emulated0001",
        "model": _snapshot(context.model),
        "object": "chat.completion.chunk",
        "system_fingerprint": "fp_emulated00",
    }
    if options.get("include_usage"):
        usual["usage"] = None
    chunks = [prompt]

    def add(delta: dict[str, Any], results: dict[str, Any], finish: str | None) -> None:
        for index in range(context.choices):
            choice = {
                "content_filter_results": results,
                "delta": delta,
                "finish_reason": finish,
                "index": index,
                "logprobs": None,
            }
            chunk = {"choices": [choice], **usual}
            if options.get("include_obfuscation", True):
                chunk["obfuscation"] = padding(len(chunks))[:16]
            chunks.append(chunk)

    safe = _safe()
    for position, delta in enumerate(deltas(answer)):
        if position == 0:
            delta["refusal"] = None
        add(delta, safe if delta.get("content") else {}, None)
    terminal = len(chunks)
    add({}, _results(answer) if answer.filtered else {}, stop_reason(answer))
    if options.get("include_usage"):
        chunks.append({**usual, "choices": list[Any](), "usage": usage(answer, call)})
    events = [data_event(compact(chunk)) for chunk in chunks]
    events.append(data_event(b"[DONE]"))
    return tuple(events), terminal


def filter_error(category: str) -> dict[str, Any]:
    """Further members of the error for a blocked prompt."""
    found: dict[str, dict[str, Any]] = {name: dict(_SAFE) for name in _CATEGORIES}
    found["jailbreak"] = {"filtered": False, "detected": False}
    if category in _CATEGORIES:
        found[category] = {"filtered": True, "severity": "high"}
    else:
        found[category] = {"filtered": True, "detected": True}
    return {
        "type": None,
        "param": "prompt",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found},
    }


def _safe() -> dict[str, Any]:
    return {name: dict(_SAFE) for name in _CATEGORIES}


def _results(answer: Answer) -> dict[str, Any]:
    results = _safe()
    results["protected_material_code"] = {"detected": False, "filtered": False}
    results["protected_material_text"] = {"detected": False, "filtered": False}
    if answer.filtered is not None:
        severity = answer.filtered in _CATEGORIES
        results[answer.filtered] = {"filtered": True, **({"severity": "high"} if severity else {"detected": True})}
    return results


def _prompt_results() -> list[dict[str, Any]]:
    return [
        {"prompt_index": 0, "content_filter_results": {**_safe(), "jailbreak": {"detected": False, "filtered": False}}}
    ]


def _snapshot(model: str) -> str:
    return {"gpt-4o": "gpt-4o-2024-11-20", "gpt-4.1": "gpt-4.1-2025-04-14", "gpt-5-mini": "gpt-5-mini-2025-08-07"}.get(
        model, model
    )
