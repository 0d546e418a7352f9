"""Messages of ours as content blocks of Converse."""

from __future__ import annotations

__all__ = ["BlockWriter"]

import re
from collections.abc import Sequence
from typing import Any, cast

from apex_llm.codecs.chat._common import (
    Media,
    arguments_as_object,
    image_format,
    leave_out,
    media,
    results_first,
    tool_result_text,
)
from apex_llm.codecs.chat._earlier_calls import called_name, fitting_call_id, known_here
from apex_llm.codecs.chat.bedrock_converse.families import Family
from apex_llm.codecs.lazy_pattern import LazyPattern
from apex_llm.errors import InvalidRequestError
from apex_llm.types.coerce import NAME_CHARACTERS
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

_LOCATIONS = frozenset({"documentChar", "documentPage", "documentChunk", "searchResultLocation", "web"})
_FORMATS = {"3gp": "three_gp", "htm": "html", "text": "txt", "plain": "txt", "markdown": "md"}
_NOT_IN_NAMES = LazyPattern(r"[^\w\s()\[\]-]", re.ASCII)
_SPACES = LazyPattern(r"\s+")
_LONGEST_NAME = 200
_ID_CHARACTERS = NAME_CHARACTERS | frozenset(".:")


class BlockWriter:
    """Turns of one request as Converse messages; remembers the document names that it gave."""

    __slots__ = ("_family", "_names", "warnings")

    def __init__(self, family: Family, warnings: list[str]) -> None:
        self._family = family
        self._names: set[str] = set()
        self.warnings: list[str] = warnings

    def messages(self, turns: Sequence[tuple[str, list[Part]]]) -> list[_Block]:
        """The turns as messages; those that have nothing to say are left out."""
        messages: list[_Block] = []
        for role, parts in turns:
            if content := self._assistant(parts) if role == "assistant" else self._user(parts):
                if messages and messages[-1]["role"] == role:
                    messages[-1]["content"].extend(content)
                else:
                    messages.append({"role": role, "content": content})
        return messages

    def caches(self, point: CachePoint) -> bool:
        """Whether the model takes cache points; a warning where it does not."""
        if not self._family.caches:
            leave_out(self.warnings, "a cache point", f"{self._family.name} does not cache prompts")
        return self._family.caches

    def cache_point(self, point: CachePoint) -> _Block:
        """The point as a block."""
        return {"cachePoint": {"type": "default", "ttl": point.ttl} if point.ttl else {"type": "default"}}

    def _user(self, parts: list[Part]) -> list[_Block]:
        blocks: list[_Block] = []
        is_result: list[bool] = []
        has_document = False
        for part in parts:
            block: _Block | None
            if isinstance(part, CachePoint):
                block = self.cache_point(part) if blocks and self.caches(part) else None
            elif isinstance(part, CitationPart | ReasoningPart | ToolCallPart):
                leave_out(self.warnings, type(part).__name__, "only an assistant says such a thing")
                block = None
            else:
                block = self._said_by_user(part)
            if block is not None:
                # A cache point belongs to what stands before it.
                is_result.append("toolResult" in block or ("cachePoint" in block and is_result[-1]))
                blocks.append(block)
                has_document = has_document or "document" in block
        if has_document and not any("text" in block for block in blocks):
            self.warnings.append("added: text beside a document, which Converse refuses alone")
            blocks.append({"text": "See the document."})
            is_result.append(False)
        return results_first(blocks, is_result=is_result)

    def _said_by_user(
        self, part: TextPart | ImagePart | DocumentPart | AudioPart | VideoPart | ToolResultPart
    ) -> _Block | None:
        if isinstance(part, TextPart):
            # Blank text is refused, and carries nothing.
            return {"text": part.text} if part.text.strip() else None
        if isinstance(part, ToolResultPart):
            return self._tool_result(part)
        return self._media(part)

    def _assistant(self, parts: list[Part]) -> list[_Block]:
        blocks: list[_Block] = []
        server_calls = {part.id: part.name for part in parts if isinstance(part, ToolCallPart) and part.server_side}
        told = known_here(parts, vendor=self._family.vendor)
        if len(told) < len(parts):
            leave_out(self.warnings, "a tool that another service ran itself", f"{self._family.name} does not know it")
        for part in told:
            if isinstance(part, TextPart):
                if part.text.strip():
                    blocks.append({"text": part.text})
            elif isinstance(part, ReasoningPart):
                if block := self._reasoning(part):
                    blocks.append(block)
            elif isinstance(part, ToolCallPart):
                use: _Block = {"toolUseId": self._call_id(part.id), "name": called_name(part.name, self.warnings)}
                use["input"] = arguments_as_object(part, self.warnings)
                if part.server_side:
                    use["type"] = "server_tool_use"
                blocks.append({"toolUse": use})
            elif isinstance(part, ToolResultPart):
                name = server_calls.get(part.tool_call_id) or part.name
                blocks.append(self._tool_result(part, type=f"{name}_result" if name else None))
            elif isinstance(part, CachePoint):
                if blocks and self.caches(part):
                    blocks.append(self.cache_point(part))
            elif isinstance(part, CitationPart):
                self._cite(blocks, part)
            else:
                blocks.append(self._media(part))
        return blocks

    def _reasoning(self, part: ReasoningPart) -> _Block | None:
        """Thinking, sent back as it came. Claude wants it signed; few others take it back at all."""
        family = self._family
        is_claude = family.vendor == "anthropic"
        sealed = bool(part.signature or part.redacted)
        # An id that does not tell its vendor may well be a Claude.
        if not family.replays_reasoning or (is_claude and not sealed) or (sealed and not is_claude and family.vendor):
            reason = "it has no signature" if is_claude else f"{family.name} does not take it back"
            leave_out(self.warnings, "reasoning of an earlier turn", reason)
            return None
        if part.redacted is not None:
            return {"reasoningContent": {"redactedContent": part.redacted}}
        text: _Block = {"text": part.text}
        if part.signature:
            text["signature"] = part.signature
        return {"reasoningContent": {"reasoningText": text}}

    def _cite(self, blocks: list[_Block], part: CitationPart) -> None:
        """Join the citation to the text before it, which is how Converse says it."""
        if not self._family.cites:
            leave_out(self.warnings, "citations of earlier turns", f"{self._family.name} does not take them back")
            return
        if not blocks or not ("text" in blocks[-1] or "citationsContent" in blocks[-1]):
            leave_out(self.warnings, "a citation", "no text stands before it")
            return
        if "text" in blocks[-1]:
            blocks[-1] = {"citationsContent": {"content": [{"text": blocks[-1]["text"]}], "citations": []}}
        citation: _Block = {}
        if part.title is not None:
            citation["title"] = part.title
        if part.source is not None:
            citation["source"] = part.source
        if part.quotes:
            citation["sourceContent"] = [{"text": quote} for quote in part.quotes]
        if part.location and len(part.location) == 1 and next(iter(part.location)) in _LOCATIONS:
            citation["location"] = part.location
        blocks[-1]["citationsContent"]["citations"].append(citation)

    def _tool_result(self, part: ToolResultPart, *, type: str | None = None) -> _Block:  # noqa: A002
        result: _Block = {"toolUseId": self._call_id(part.tool_call_id), "content": self._result_content(part)}
        if type is not None:
            result["type"] = type
        if part.is_error:
            if self._family.vendor == "writer":
                leave_out(self.warnings, "is_error", f"{self._family.name} takes no status of a tool result")
            else:
                result["status"] = "error"
        elif part.server_side:
            result["status"] = "success"
        return {"toolResult": result}

    def _call_id(self, call_id: str) -> str:
        # Behind an id that does not tell its vendor there may well be a Claude.
        characters = NAME_CHARACTERS if self._family.vendor in {"", "anthropic"} else _ID_CHARACTERS
        return fitting_call_id(call_id, longest=64, characters=characters)

    def _result_content(self, part: ToolResultPart) -> list[_Block]:
        content: Any = part.content
        if isinstance(content, Sequence) and not isinstance(content, str) and content:
            items = cast("Sequence[Any]", content)
            if all(isinstance(item, TextPart | ImagePart | DocumentPart | VideoPart) for item in items):
                return [block for item in items if (block := self._said_by_user(item)) is not None]
        # Converse takes JSON objects only; any other JSON value travels as its text.
        if not isinstance(content, str | Sequence):
            return [{"json": content}]
        text = tool_result_text(part.content)
        if self._family.vendor == "mistral":
            return [{"json": {"result": text}}]
        return [{"text": text if text.strip() else "(no output)"}]

    def _media(self, part: ImagePart | DocumentPart | AudioPart | VideoPart) -> _Block:
        source = media(part)
        if isinstance(part, ImagePart):
            return {"image": {"format": image_format(part, source), "source": self._source(source)}}
        given = part.format.lower().rpartition("/")[2].removeprefix(".")
        block: _Block = {"format": _FORMATS.get(given, given)}
        if isinstance(part, AudioPart | VideoPart):
            block["source"] = self._source(source)
            return {"audio" if isinstance(part, AudioPart) else "video": block}
        block["name"] = self._document_name(part.name)
        block["source"] = self._source(source)
        if part.citations:
            if self._family.cites:
                block["citations"] = {"enabled": True}
            else:
                leave_out(self.warnings, "citations", f"{self._family.name} does not cite")
        return {"document": block}

    def _source(self, source: Media) -> _Block:
        if source.data is not None:
            return {"bytes": source.data}
        url = source.url or ""
        if url.startswith("s3://"):
            return {"s3Location": {"uri": url}}
        raise InvalidRequestError(
            f"Converse does not fetch {url.partition(':')[0][:20]}: addresses.",
            phase="prepare",
            hint="Download it and pass data=..., or put it into S3 and pass url='s3://bucket/key'.",
        )

    def _document_name(self, name: str) -> str:
        """A name that Bedrock takes, and that no other document of the request has."""
        plain = _SPACES.sub(" ", _NOT_IN_NAMES.sub("-", name)).strip()[:_LONGEST_NAME] or "document"
        unique, number = plain, 1
        while unique in self._names:
            number += 1
            unique = f"{plain[: _LONGEST_NAME - 6]} ({number})"
        self._names.add(unique)
        return unique
