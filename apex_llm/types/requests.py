"""What is asked: one chat request in the common vocabulary, and the options that make it up."""

from __future__ import annotations

__all__ = ["ChatOptions", "ChatRequest", "ReasoningEffort", "TextOptions"]

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import msgspec

from apex_llm.types.http import Timeout
from apex_llm.types.messages import Message
from apex_llm.types.tools import Tool, ToolChoice

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much to think before answering; each codec translates it, or leaves it out with a warning."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, complete and checked; codecs translate it, nobody changes it."""

    model: str
    """The id that goes on the wire."""
    messages: tuple[Message, ...]
    """System messages included, in the order given."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    """As in the OpenAI API: ``{"type": "json_object"}`` or ``{"type": "json_schema", "json_schema": {...}}``."""
    reasoning_effort: str | None = None
    metadata: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None
    """Merged into the top level of the JSON body, last."""
    extra_headers: Mapping[str, str] | None = None
    extra_query: Mapping[str, str] | None = None
    timeout: Timeout = Timeout()


class TextOptions(TypedDict, total=False):
    """Keyword options of ``generate_text`` and ``generate_text_stream``, the same on every provider.

    An option that a model cannot take is left out with a warning on the response, or refused
    before sending where leaving it out would change the meaning of the answer.
    """

    system: str | None
    """Instructions; the same as a system message in front."""
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    tools: Sequence[Tool | Mapping[str, Any]] | None
    tool_choice: str | ToolChoice | Mapping[str, Any] | None
    """``"auto"``, ``"none"``, ``"required"`` or the name of one tool."""
    parallel_tool_calls: bool | None
    response_format: Mapping[str, Any] | None
    """As in the OpenAI API: ``{"type": "json_object"}`` or ``{"type": "json_schema", "json_schema": {...}}``."""
    reasoning_effort: ReasoningEffort | None
    metadata: Mapping[str, str] | None
    """At most 16 pairs that the provider keeps with the request."""
    deployment_id: str | None
    """The same as ``model``."""
    timeout: float | Timeout | None
    """Seconds for the whole call, or a ``Timeout``; ``None`` waits for ever."""
    extra_body: Mapping[str, Any] | None
    """Merged into the JSON body: the way to anything that this package has no word for."""
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, str] | None


class ChatOptions(TextOptions, total=False):
    """Keyword options of ``chat`` and ``chat_stream``: two more, which ``generate_text`` takes by position."""

    max_tokens: int | None
    temperature: float | None
