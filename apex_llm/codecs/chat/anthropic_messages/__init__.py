"""Anthropic's Messages format, as Bedrock's InvokeModel takes it.

The version travels in the body, the model and the wish to stream in the path. ``encode`` writes
requests, ``decode`` reads whole answers, ``stream`` reads events, out of Bedrock's ``chunk`` frames
or out of server-sent events alike.
"""

from __future__ import annotations

__all__ = ["AnthropicMessagesCodec", "AnthropicStreamDecoder"]

from apex_llm.codecs.chat.anthropic_messages.decode import decode_answer
from apex_llm.codecs.chat.anthropic_messages.encode import encode_request
from apex_llm.codecs.chat.anthropic_messages.stream import AnthropicStreamDecoder
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse


class AnthropicMessagesCodec:
    """``ChatCodec`` for Claude on InvokeModel and InvokeModelWithResponseStream.

    Args:
        base_model: The foundation model's id, where the request carries an ARN that does not tell it.
    """

    __slots__ = ("_base_model",)

    def __init__(self, *, base_model: str | None = None) -> None:
        self._base_model = base_model

    def encode(self, request: ChatRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
        """The JSON body, the same for both operations, and warnings about what was left out.

        Raises:
            InvalidRequestError: Something in the request cannot be said in this format.
        """
        del stream
        return encode_request(request, model=self._base_model or request.model)

    def decode(self, body: bytes) -> ChatResponse:
        """The answer.

        Raises:
            ResponseFormatError: The body is not such an answer.
            LimitExceededError: It is nested too deep.
        """
        return decode_answer(body)

    def stream_decoder(self) -> AnthropicStreamDecoder:
        """A fresh decoder for one stream."""
        return AnthropicStreamDecoder()
