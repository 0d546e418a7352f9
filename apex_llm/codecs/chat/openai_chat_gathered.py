"""What few streams of chat completions hold, put together as an answer that is not streamed has it.

Token probabilities, a spoken answer and the calls of custom tools have no events of their own: they come
in pieces, and stand in ``extra`` at the end.
"""

from __future__ import annotations

__all__ = ["Gathered"]

from collections.abc import Mapping
from typing import Any, cast

from apex_llm.codecs.chat.openai_chat_wire import ToolCallDelta, custom_call_of
from apex_llm.codecs.json_text import join_base64


class Gathered:
    """The pieces so far; each is looked at once more, when they are joined."""

    __slots__ = ("_audio", "_calls", "_logprobs")

    def __init__(self) -> None:
        self._logprobs: dict[str, Any] = {}
        self._audio: dict[str, Any] = {}
        self._calls: dict[int, _Pieces] = {}

    def add_logprobs(self, piece: Mapping[str, Any]) -> None:
        """The probabilities of some more tokens."""
        for name, value in piece.items():
            known = self._logprobs.get(name)
            if isinstance(value, list) and isinstance(known, list):
                cast("list[Any]", known).extend(cast("list[Any]", value))
            elif value is not None or name not in self._logprobs:
                self._logprobs[name] = value

    def add_audio(self, piece: Mapping[str, Any]) -> None:
        """Some more of a spoken answer."""
        for name, value in piece.items():
            if name in {"data", "transcript"} and isinstance(value, str):
                self._audio.setdefault(name, []).append(value)
            elif value is not None:
                self._audio[name] = value

    def add_custom_call(self, piece: ToolCallDelta) -> None:
        """A call of a custom tool, or a piece of its input."""
        call = self._calls.setdefault(piece.index or 0, _Pieces())
        call.id = call.id or piece.id
        for name, value in (piece.custom or {}).items():
            if name == "input" and isinstance(value, str):
                call.input.append(value)
            elif value is not None:
                call.others[name] = value

    def extra(self) -> dict[str, Any]:
        """For ``extra``, under the service's own names."""
        extra: dict[str, Any] = {}
        if self._logprobs:
            extra["logprobs"] = self._logprobs
        if self._audio:
            joined = {"data": join_base64, "transcript": "".join}
            extra["audio"] = {
                name: joined[name](value) if name in joined else value for name, value in self._audio.items()
            }
        if self._calls:
            extra["custom_tool_calls"] = [call.whole() for call in self._calls.values()]
        return extra


class _Pieces:
    __slots__ = ("id", "input", "others")

    def __init__(self) -> None:
        self.id: str | None = None
        self.input: list[str] = []
        self.others: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        return custom_call_of(ToolCallDelta(id=self.id, custom={**self.others, "input": "".join(self.input)}))
