"""A whole answer of each format, said again as the events of a stream: cut anywhere, in any order that is allowed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from random import Random
from typing import Any

Event = tuple[str, dict[str, Any]]


def cut(text: Any, random: Random) -> list[Any]:
    """Text or bytes in one to four pieces; what is empty in one piece or none."""
    if not text:
        return [text] * random.randrange(2)
    places = sorted(random.sample(range(1, len(text)), random.randint(0, min(3, len(text) - 1))))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def cut_base64(text: str, random: Random) -> list[str]:
    """Bytes in pieces, each base64 of its own."""
    return [base64.b64encode(piece).decode() for piece in cut(base64.b64decode(text), random)]


def _shuffled(first: list[Any], second: list[Any], random: Random) -> list[Any]:
    """Both lists as one; each keeps its order."""
    sides = [0] * len(first) + [1] * len(second)
    random.shuffle(sides)
    queues = iter(first), iter(second)
    return [next(queues[side]) for side in sides]


# ----------------------------------------------------------------------------------------------- Converse


def converse_events(answer: dict[str, Any], random: Random) -> Iterator[Event]:
    """ConverseStream."""
    yield "messageStart", {"role": "assistant", "p": "abc"}
    for index, block in enumerate(answer["output"]["message"]["content"]):
        start, deltas = _converse_block(block, random)
        if start is not None:
            yield "contentBlockStart", {"contentBlockIndex": index, "start": start, "p": "a"}
        for delta in deltas:
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": "ab"}
        yield "contentBlockStop", {"contentBlockIndex": index}
    last = ("usage", "metrics", "trace", "performanceConfig", "serviceTier")
    stop = ("stopReason", "additionalModelResponseFields")
    yield "messageStop", {name: answer[name] for name in stop if name in answer}
    yield "metadata", {name: answer[name] for name in last if name in answer}


def _converse_block(block: dict[str, Any], random: Random) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    ((kind, value),) = block.items()
    match kind:
        case "text":
            return None, [{"text": piece} for piece in cut(value, random)]
        case "toolUse":
            start = {name: member for name, member in value.items() if name != "input"}
            pieces = cut(json.dumps(value["input"]), random)
            return {"toolUse": start}, [{"toolUse": {"input": piece}} for piece in pieces]
        case "toolResult":
            start = {name: member for name, member in value.items() if name != "content"}
            return {"toolResult": start}, [{"toolResult": [item]} for item in value["content"]]
        case "reasoningContent":
            if "redactedContent" in value:
                pieces = cut_base64(value["redactedContent"], random)
                return None, [{"reasoningContent": {"redactedContent": piece}} for piece in pieces]
            text = value["reasoningText"]
            said = [{"text": piece} for piece in cut(text["text"], random)]
            signed = [{"signature": piece} for piece in cut(text.get("signature", ""), random)]
            return None, [{"reasoningContent": piece} for piece in said + signed]
        case "citationsContent":
            said = [{"text": piece} for item in value.get("content", []) for piece in cut(item.get("text"), random)]
            cited = [{"citation": citation} for citation in value.get("citations", [])]
            return None, _shuffled([each for each in said if each["text"]], cited, random)
        case "image":
            start = {"format": value["format"]}
            source = value["source"]
            rest = {name: member for name, member in value.items() if name == "error"}
            pieces = [source]
            if "bytes" in source:
                pieces = [{"bytes": piece} for piece in cut_base64(source["bytes"], random)]
            return {"image": start}, [{"image": {"source": piece, **rest}} for piece in pieces]
    raise AssertionError(f"ConverseStream has no {kind}")


# ------------------------------------------------------------------------------------------------- Claude


def claude_events(answer: dict[str, Any], random: Random) -> Iterator[Event]:
    """The events of Anthropic's Messages."""
    message = {**answer, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    early, late = dict(answer["usage"]), dict(answer["usage"])
    early["output_tokens"] = 1
    yield "message_start", {"type": "message_start", "message": {**message, "usage": early}}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(answer["content"]):
        start, deltas = _claude_block(block, random)
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    said_last = ("stop_reason", "stop_sequence", "stop_details", "container")
    delta = {name: answer[name] for name in said_last if name in answer}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": late}
    yield "message_stop", {"type": "message_stop"}


def _claude_block(block: dict[str, Any], random: Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block["type"]:
        case "text":
            said = [{"type": "text_delta", "text": piece} for piece in cut(block["text"], random)]
            cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations") or []]
            return {"type": "text", "text": "", "citations": []}, _shuffled(said, cited, random)
        case "thinking":
            said = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"], random)]
            signed = [{"type": "signature_delta", "signature": block["signature"]}]
            return {"type": "thinking", "thinking": "", "signature": ""}, said + signed
        case "tool_use" | "server_tool_use":
            pieces = cut(json.dumps(block["input"]), random)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            return {**block, "input": {}}, deltas
        case _:
            return block, []


# ------------------------------------------------------------------------------------------------- OpenAI


def openai_chunks(answer: dict[str, Any], random: Random) -> Iterator[dict[str, Any]]:
    """Chunks of a chat completion with one choice, as Azure sends them."""
    (choice,) = answer["choices"]
    message = choice["message"]
    head = {name: answer.get(name) for name in ("id", "created", "model", "service_tier", "system_fingerprint")}
    head["object"] = "chat.completion.chunk"
    if "prompt_filter_results" in answer:
        prompt = answer["prompt_filter_results"]
        yield {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": prompt}

    def chunk(delta: dict[str, Any], **beside: Any) -> dict[str, Any]:
        plain = {"index": 0, "delta": delta, "finish_reason": None, **filtered}
        return {**head, "choices": [{**plain, **beside}], "usage": None}

    filtered = (
        {"content_filter_results": choice["content_filter_results"]} if "content_filter_results" in choice else {}
    )
    yield chunk({"role": "assistant", "content": "", "refusal": None}, content_filter_results={})
    said = [chunk({"content": piece}) for piece in cut(message.get("content") or "", random)]
    thought = cut(message.get("reasoning_content") or "", random)
    yield from [chunk({"reasoning_content": piece}) for piece in thought]
    yield from _shuffled(said, [chunk({}, logprobs=piece) for piece in _logprobs(choice, random)], random)
    yield from [chunk({"refusal": piece}) for piece in cut(message.get("refusal") or "", random)]
    if message.get("annotations"):
        yield chunk({"annotations": message["annotations"]})
    yield from [chunk({"audio": piece}) for piece in _audio(message.get("audio"), random)]
    for index, call in enumerate(message.get("tool_calls") or []):
        yield from [chunk({"tool_calls": [piece]}) for piece in _call(call, index, random)]
    function = message.get("function_call")
    if function is not None:
        yield chunk({"function_call": {"name": function["name"], "arguments": ""}})
        yield from [chunk({"function_call": {"arguments": piece}}) for piece in cut(function["arguments"], random)]
    if "content_filter_results" in choice:
        yield {**head, "choices": [{"index": 0, "finish_reason": None, **filtered, "content_filter_offsets": {}}]}
    yield chunk({}, finish_reason=choice["finish_reason"], content_filter_results={})
    beside = {name: answer[name] for name in ("usage", "moderation", "metadata") if name in answer}
    yield {**head, "choices": [], **beside}


def _logprobs(choice: dict[str, Any], random: Random) -> Iterator[dict[str, Any]]:
    logprobs = choice.get("logprobs")
    if logprobs is not None:
        yield {name: tokens and tokens[:1] for name, tokens in logprobs.items()}
        for name, tokens in logprobs.items():
            yield from [{name: [token]} for token in (tokens or [])[1:]]


def _audio(audio: dict[str, Any] | None, random: Random) -> Iterator[dict[str, Any]]:
    if audio is not None:
        yield {"id": audio["id"]}
        yield from [{"data": piece} for piece in cut_base64(audio["data"], random)]
        yield from [{"transcript": piece} for piece in cut(audio["transcript"], random)]
        yield {"expires_at": audio["expires_at"]}


def _call(call: dict[str, Any], index: int, random: Random) -> Iterator[dict[str, Any]]:
    kind = call["type"]
    words = "arguments" if kind == "function" else "input"
    begun = {**call[kind], words: ""}
    yield {"index": index, "id": call["id"], "type": kind, kind: begun}
    for piece in cut(call[kind][words], random):
        yield {"index": index, kind: {words: piece}}
