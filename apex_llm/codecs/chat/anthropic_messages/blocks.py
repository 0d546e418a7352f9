"""Messages of ours as content blocks of Claude's own format."""

from __future__ import annotations

__all__ = ["BlockWriter"]

import base64
from collections.abc import Sequence
from typing import Any, cast

from apex_llm.codecs.chat._common import (
    arguments_as_object,
    image_format,
    leave_out,
    media,
    results_first,
    tool_result_text,
)
from apex_llm.codecs.chat._earlier_calls import called_name, fitting_call_id, known_here
from apex_llm.errors import InvalidRequestError
from apex_llm.types.messages import (
    AudioPart,
    CachePoint,
    CitationPart,
    DocumentPart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    VideoPart,
)

_Block = dict[str, Any]

_TEXT_DOCUMENTS = frozenset({"txt", "text", "md", "markdown", "csv", "html", "htm", "plain"})
# What each kind of citation cannot do without when it is sent back.
_CITATIONS = {
    "char_location": ("cited_text", "document_index", "start_char_index", "end_char_index"),
    "page_location": ("cited_text", "document_index", "start_page_number", "end_page_number"),
    "content_block_location": ("cited_text", "document_index", "start_block_index", "end_block_index"),
    "search_result_location": ("cited_text", "search_result_index", "source", "start_block_index", "end_block_index"),
    "web_search_result_location": ("cited_text", "encrypted_index", "url"),
}
_TITLED = frozenset({"search_result_location", "web_search_result_location"})
_NOT_CACHED = frozenset({"thinking", "redacted_thinking"})


class BlockWriter:
    """Turns of one request as Claude's messages."""

    __slots__ = ("_warnings",)

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings

    def system(self, parts: Sequence[Part]) -> str | list[_Block] | None:
        """The system prompt: text where that says it all, blocks where there are several or a cache point."""
        blocks: list[_Block] = []
        for part in parts:
            if isinstance(part, TextPart):
                if part.text.strip():
                    blocks.append({"type": "text", "text": part.text})
            elif isinstance(part, CachePoint):
                self._mark(blocks, part)
            else:
                leave_out(self._warnings, type(part).__name__, "a system prompt is text and cache points")
        if len(blocks) == 1 and "cache_control" not in blocks[0]:
            return cast("str", blocks[0]["text"])
        return blocks or None

    def messages(self, turns: Sequence[tuple[str, list[Part]]]) -> list[_Block]:
        """The turns as messages; those that have nothing to say are left out."""
        messages: list[_Block] = []
        for role, parts in turns:
            if content := self._content(role, parts):
                if messages and messages[-1]["role"] == role:
                    messages[-1]["content"].extend(content)
                else:
                    messages.append({"role": role, "content": content})
        return messages

    def _content(self, role: str, parts: list[Part]) -> list[_Block]:
        blocks: list[_Block] = []
        told = known_here(parts, vendor="anthropic")
        if len(told) < len(parts):
            leave_out(self._warnings, "a tool that another service ran itself", "Claude does not know it")
        for part in told:
            if isinstance(part, CachePoint):
                self._mark(blocks, part)
            elif isinstance(part, ReasoningPart | ToolCallPart | CitationPart) and role != "assistant":
                leave_out(self._warnings, type(part).__name__, "only an assistant says such a thing")
            elif isinstance(part, CitationPart):
                self._cite(blocks, part)
            elif block := self._block(part):
                blocks.append(block)
        if role == "assistant":
            return blocks
        return results_first(blocks, is_result=[block["type"] == "tool_result" for block in blocks])

    def _block(
        self,
        part: TextPart
        | ImagePart
        | DocumentPart
        | AudioPart
        | VideoPart
        | ToolCallPart
        | ToolResultPart
        | ReasoningPart,
    ) -> _Block | None:
        if isinstance(part, TextPart):
            # Blank text is refused, and carries nothing.
            return {"type": "text", "text": part.text} if part.text.strip() else None
        if isinstance(part, ToolCallPart):
            kind = "server_tool_use" if part.server_side else "tool_use"
            return {
                "type": kind,
                "id": fitting_call_id(part.id, longest=64),
                "name": called_name(part.name, self._warnings),
                "input": arguments_as_object(part, self._warnings),
            }
        if isinstance(part, ToolResultPart):
            return self._tool_result(part)
        if isinstance(part, ReasoningPart):
            return self._reasoning(part)
        if isinstance(part, ImagePart):
            return self._image(part)
        if isinstance(part, DocumentPart):
            return self._document(part)
        raise InvalidRequestError(
            f"Claude takes no {'audio' if isinstance(part, AudioPart) else 'video'}.",
            phase="prepare",
            hint="Use a model that does, such as Amazon Nova.",
        )

    def _reasoning(self, part: ReasoningPart) -> _Block | None:
        if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        if part.signature:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        leave_out(self._warnings, "reasoning of an earlier turn", "it has no signature")
        return None

    def _tool_result(self, part: ToolResultPart) -> _Block:
        call_id = fitting_call_id(part.tool_call_id, longest=64)
        if part.server_side and part.name and part.name.endswith("_tool_result"):
            return {"type": part.name, "tool_use_id": call_id, "content": part.content}
        result: _Block = {"type": "tool_result", "tool_use_id": call_id}
        content: Any = part.content
        items = cast("Sequence[Any]", content) if isinstance(content, Sequence) and not isinstance(content, str) else ()
        if items and all(isinstance(item, TextPart | ImagePart | DocumentPart) for item in items):
            result["content"] = [block for item in items if (block := self._block(item))]
        else:
            result["content"] = tool_result_text(part.content)
        if part.is_error:
            result["is_error"] = True
        return result

    def _image(self, part: ImagePart) -> _Block:
        source = media(part)
        if source.data is None:
            return {"type": "image", "source": self._address(source.url or "")}
        kind = f"image/{image_format(part, source)}"
        data = base64.b64encode(source.data).decode()
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}

    def _document(self, part: DocumentPart) -> _Block:
        source = media(part)
        given = part.format.lower().rpartition("/")[2].removeprefix(".")
        described: _Block
        if source.data is None:
            described = self._address(source.url or "")
        elif given == "pdf":
            data = base64.b64encode(source.data).decode()
            described = {"type": "base64", "media_type": "application/pdf", "data": data}
        elif given in _TEXT_DOCUMENTS:
            # Replacing keeps a document in another encoding readable for the most part.
            described = {"type": "text", "media_type": "text/plain", "data": source.data.decode("utf-8-sig", "replace")}
        else:
            raise InvalidRequestError(
                f"Claude's own format takes no {given!r} documents.",
                phase="prepare",
                hint="Use Converse (api='converse'), or convert it to PDF or text.",
            )
        block: _Block = {"type": "document", "source": described, "title": part.name or "document"}
        if part.citations:
            block["citations"] = {"enabled": True}
        return block

    def _address(self, url: str) -> _Block:
        if url.startswith(("https://", "http://")):
            return {"type": "url", "url": url}
        raise InvalidRequestError(
            f"Claude's own format takes no {url.partition(':')[0][:20]}: addresses.",
            phase="prepare",
            hint="Download it and pass data=....",
        )

    def _mark(self, blocks: list[_Block], point: CachePoint) -> None:
        """Mark the last block that may be marked: this format has no points of their own."""
        for block in reversed(blocks):
            if block["type"] not in _NOT_CACHED:
                block["cache_control"] = {"type": "ephemeral", "ttl": point.ttl} if point.ttl else {"type": "ephemeral"}
                return
        leave_out(self._warnings, "a cache point", "nothing stands before it that could be cached")

    def _cite(self, blocks: list[_Block], part: CitationPart) -> None:
        """Join the citation to the text before it, where it is one of Claude's own."""
        location = part.location or {}
        needed = _CITATIONS.get(str(location.get("type")))
        if needed is None or not all(name in location for name in needed):
            leave_out(self._warnings, "a citation of an earlier turn", "it is not in Claude's own words")
        elif blocks and blocks[-1]["type"] == "text":
            # Claude wants the title back, be it null, and refuses the file_id that it gives itself.
            title = "title" if location["type"] in _TITLED else "document_title"
            taken = {name: location[name] for name in ("type", *needed)}
            blocks[-1].setdefault("citations", []).append({**taken, title: location.get(title)})
        else:
            leave_out(self._warnings, "a citation", "no text stands before it")
