"""What comes back: the answer, why it ended, and what it used."""

from __future__ import annotations

__all__ = ["ChatResponse", "FinishReason", "Usage"]

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from apex_llm.types.messages import Message, ReasoningPart, ToolCallPart


class FinishReason(enum.StrEnum):
    """Why the model stopped. Equal to its plain word: ``response.finish_reason == "stop"``."""

    STOP = "stop"
    """The model was done, or met a stop sequence."""
    LENGTH = "length"
    """``max_tokens`` was reached."""
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    GUARDRAIL = "guardrail"
    REFUSAL = "refusal"
    CONTEXT_WINDOW = "context_window"
    UNKNOWN = "unknown"
    """A word that we do not know; see ``raw_finish_reason``."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens counted by the provider, not by us."""

    input_tokens: int
    """Everything read, cache reads and writes included, on every provider."""
    output_tokens: int
    """Everything written, reasoning included."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The provider's own object, unchanged."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class ChatResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer. ``str(response)`` is its text."""

    message: Message
    """The assistant's turn; append it to the conversation as it is."""
    finish_reason: FinishReason | None = None
    """``None`` only in the ``partial`` of a stream that broke."""
    raw_finish_reason: str | None = None
    """The provider's own word."""
    usage: Usage | None = None
    """``None`` where the provider did not say."""
    model: str = ""
    """The model that answered, as the provider named it, else as it was asked for."""
    id: str | None = None
    """The provider's id of the answer."""
    request_id: str | None = None
    """Quote it to the provider's support."""
    attempts: int = 1
    """Sends that it took."""
    warnings: tuple[str, ...] = ()
    """What was left out or repaired, and what was odd about the answer."""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Parts of the answer that only one provider has, such as ``trace`` or ``prompt_filter_results``."""
    body: bytes = b""
    """The JSON as it arrived; empty for streams."""

    @property
    def text(self) -> str:
        """The answer's text, without reasoning."""
        return self.message.text

    @property
    def reasoning(self) -> str:
        """The model's thinking, where it shows any."""
        return "".join(part.text for part in self.message.parts if isinstance(part, ReasoningPart))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """Calls that wait for a result."""
        return self.message.tool_calls

    @property
    def blocked(self) -> bool:
        """Whether a filter, guardrail or safety classifier withheld the answer or cut it short.

        A model that declines in words of its own has answered; that is ``refusal`` without being blocked.
        """
        reason = self.finish_reason
        if reason == "stop":
            return False
        if reason == "refusal":
            return self.raw_finish_reason == "refusal"
        return reason == "content_filter" or reason == "guardrail"

    @property
    def raw(self) -> Any:
        """The provider's JSON, parsed at each access; ``None`` for streams."""
        if not self.body:
            return None
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            import json  # 3 ms that hardly any process needs

            # Lone surrogates and the like, which the codecs have read as well.
            return json.loads(self.body.decode("utf-8-sig", "replace"), strict=False)

    def __str__(self) -> str:
        return self.message.text
