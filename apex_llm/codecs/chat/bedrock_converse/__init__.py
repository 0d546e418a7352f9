"""Bedrock's Converse format: one schema for every chat model that it hosts.

Follows the service model of ``bedrock-runtime`` and what recorded traffic shows beyond it.
``encode`` writes requests, ``decode`` reads whole answers, ``stream`` reads the events of
ConverseStream; frames, addresses and errors are other rooms' business.
"""

from __future__ import annotations

__all__ = ["BedrockConverseCodec"]

from typing import TYPE_CHECKING

from apex_llm.codecs.chat.bedrock_converse.decode import decode_answer
from apex_llm.codecs.chat.bedrock_converse.encode import encode_request
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse

if TYPE_CHECKING:
    from apex_llm.codecs.chat.bedrock_converse.stream import ConverseStreamDecoder


class BedrockConverseCodec:
    """``ChatCodec`` for Converse and ConverseStream.

    Args:
        base_model: The foundation model's id, where the request carries an ARN that does not tell it
            (application profiles, provisioned throughput, custom deployments).
    """

    __slots__ = ("_base_model",)

    def __init__(self, *, base_model: str | None = None) -> None:
        self._base_model = base_model

    def encode(self, request: ChatRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
        """The JSON body, the same for both operations, and warnings about what was left out.

        Raises:
            InvalidRequestError: Something in the request cannot be said to Converse.
        """
        del stream
        return encode_request(request, model=self._base_model or request.model)

    def decode(self, body: bytes) -> ChatResponse:
        """The answer of Converse.

        Raises:
            ResponseFormatError: The body is not such an answer.
            LimitExceededError: It is nested too deep.
        """
        return decode_answer(body)

    def stream_decoder(self) -> ConverseStreamDecoder:
        """A fresh decoder for one ConverseStream."""
        from apex_llm.codecs.chat.bedrock_converse.stream import ConverseStreamDecoder

        return ConverseStreamDecoder()
