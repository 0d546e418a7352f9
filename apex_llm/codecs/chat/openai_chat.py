"""OpenAI's chat-completions format, both ways: Azure OpenAI (dated and v1), OpenAI, and whoever speaks it.

Requests are written by ``openai_chat_request``, chunks are read by ``openai_chat_stream``,
whole answers here. What an endpoint can be told stands in its profile.
"""

from __future__ import annotations

__all__ = ["OpenAIChatCodec", "OpenAIChatProfile", "profile_for"]

from typing import TYPE_CHECKING, Any

from apex_llm.codecs.azure_failures import openai_stream_failure
from apex_llm.codecs.chat.openai_chat_profile import OpenAIChatProfile, profile_for
from apex_llm.codecs.chat.openai_chat_request import encode_request
from apex_llm.codecs.chat.openai_chat_wire import (
    Answer,
    AnswerChoice,
    Delta,
    add_particulars,
    arguments_text,
    citation_of,
    custom_call_of,
    finish_reason_of,
    reasoning_text,
    text_of,
    usage_of,
)
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import ResponseFormatError
from apex_llm.types.messages import Message, Part, ReasoningPart, TextPart, ToolCallPart
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse

if TYPE_CHECKING:
    from apex_llm.codecs.chat.openai_chat_stream import OpenAIChatStreamDecoder


class OpenAIChatCodec:
    """Chat completions. Stateless; the profile says what the endpoint takes.

    Example:
        ``OpenAIChatCodec(profile_for("2024-10-21", "gpt-4o"))``
    """

    def __init__(self, profile: OpenAIChatProfile | None = None) -> None:
        self.profile: OpenAIChatProfile = profile or OpenAIChatProfile()

    def encode(self, request: ChatRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
        """The JSON body, and warnings about what had to be left out.

        Raises:
            InvalidRequestError: The request cannot be said in this format, or to this api-version.
        """
        return encode_request(request, self.profile, stream=stream)

    def decode(self, body: bytes) -> ChatResponse:
        """The answer. Of several choices the first makes the message; the others stand in ``extra["choices"]``.

        Raises:
            ResponseFormatError: The body is not a chat completion.
            ApexLlmError: The body is an error, sent with a status of success.
        """
        answer = decode_json(body, Answer, what="The chat completion")
        if answer.error:
            raise openai_stream_failure(body)
        choices = answer.choices
        if not choices:
            raise ResponseFormatError("The chat completion has no choices.")
        choice = choices[0] if len(choices) == 1 else min(choices, key=_index)
        message = choice.message or Delta()
        parts, refused = _parts(message)
        extra, warnings = _extra(answer, choice, message), ()
        if len(choices) > 1:
            position = choices.index(choice)
            everything: Any = decode_json(body, dict[str, Any], what="The chat completion")["choices"]
            extra["choices"] = [other for index, other in enumerate(everything) if index != position]
            warnings = (f"{len(choices)} choices came; the message is the first, the others are in extra['choices'].",)
        return ChatResponse(
            message=Message("assistant", parts),
            finish_reason=finish_reason_of(
                choice.finish_reason,
                has_calls=len(parts) > 0 and isinstance(parts[-1], ToolCallPart),
                refused=refused,
            ),
            raw_finish_reason=choice.finish_reason,
            usage=usage_of(answer.usage, answer.metrics),
            model=answer.model or "",
            id=answer.id or None,
            warnings=warnings,
            extra=extra,
            body=body,
        )

    def stream_decoder(self) -> OpenAIChatStreamDecoder:
        """A fresh decoder for one stream."""
        from apex_llm.codecs.chat.openai_chat_stream import OpenAIChatStreamDecoder

        return OpenAIChatStreamDecoder()


def _index(choice: AnswerChoice) -> int:
    return choice.index or 0


def _parts(message: Delta) -> tuple[tuple[Part, ...], bool]:
    text = message.content
    if (
        isinstance(text, str)
        and text
        and message.tool_calls is None
        and message.refusal is None
        and message.reasoning_content is None
        and message.reasoning is None
        and message.function_call is None
        and not message.annotations
    ):
        return (TextPart(text=text),), False
    parts: list[Part] = []
    reasoning = reasoning_text(message)
    if reasoning:
        parts.append(ReasoningPart(text=reasoning))
    text = text_of(message.content)
    if text:
        parts.append(TextPart(text=text))
    if message.refusal:
        parts.append(TextPart(text=message.refusal))
    parts.extend(citation_of(annotation) for annotation in message.annotations or () if annotation)
    for position, call in enumerate(message.tool_calls or ()):
        if call.function is not None:
            parts.append(
                ToolCallPart(
                    id=call.id or f"call_{position}",
                    name=call.function.name or "",
                    arguments=arguments_text(call.function.arguments) or "{}",
                )
            )
    if message.function_call is not None and not message.tool_calls:
        function = message.function_call
        # The deprecated form has no ids; a made-up one lets a result refer to the call.
        parts.append(
            ToolCallPart(
                id="function_call", name=function.name or "", arguments=arguments_text(function.arguments) or "{}"
            )
        )
    return tuple(parts), bool(message.refusal)


def _extra(answer: Answer, choice: AnswerChoice, message: Delta) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if prompts := answer.prompt_filter_results or answer.prompt_annotations:
        extra["prompt_filter_results"] = prompts
    if results := choice.content_filter_results or choice.content_filter_result:
        extra["content_filter_results"] = results
    if message.context:
        extra["context"] = message.context
    if choice.logprobs:
        extra["logprobs"] = choice.logprobs
    if message.audio:
        extra["audio"] = message.audio
    if message.tool_calls and (custom := [custom_call_of(call) for call in message.tool_calls if call.custom]):
        extra["custom_tool_calls"] = custom
    add_particulars(answer, extra)
    return extra
