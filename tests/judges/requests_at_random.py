"""Chat requests at random: every part, option and oddity that our own vocabulary allows."""

from __future__ import annotations

import base64
from random import Random
from typing import Any

from apex_llm import (
    AudioPart,
    CachePoint,
    CitationPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    VideoPart,
)
from apex_llm.types.messages import Part

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
_TEXTS = ("Hi", "", " ", "\n", "What is this?", "«é😀»", '{"a": 1}', "x" * 300, "\u2028")
_IDS = ("call_1", "tooluse_Zsi5nDkWQFuQ", "toolu_bdrk_01Ab", "functions.get_weather:0", "", "a" * 70, "call 1/é", "1")
_NAMES = ("get_weather", "f", "ns.tool", "a" * 70, "my tool", "")
_JSON: tuple[Any, ...] = ({"a": 1}, {}, [], [1, "two", None], {"deep": {"list": [{"x": 1.5}]}}, ["text"])


class Requests:
    """Makes requests. ``odd`` is how often something is unusual."""

    def __init__(self, random: Random, *, odd: float = 0.1) -> None:
        self.random = random
        self.odd = odd
        self._calls: list[str] = []

    def _some(self, rate: float = 0.3) -> bool:
        return self.random.random() < rate

    def _one_of(self, usual: Any, *unusual: Any) -> Any:
        return self.random.choice(unusual) if self._some(self.odd) else usual

    def request(self) -> tuple[list[Message], dict[str, Any]]:
        """Messages and options that may or may not make sense."""
        pick = self.random.choice
        tools = tuple(self._tool(number) for number in range(pick((0, 0, 1, 2))))
        options: dict[str, Any] = {}
        if self._some():
            options["max_tokens"] = self._one_of(500, 1, 0, -5, 3000, 100_000)
        if self._some():
            options["temperature"] = self._one_of(0.5, 0, 1, 1.5, 2, -0.5, float("nan"))
        if self._some():
            options["top_p"] = self._one_of(0.9, 0.0, 1.0, 1.5, -1.0)
        if self._some(0.1):
            options["top_k"] = self._one_of(40, 0, -1)
        if self._some():
            options["stop"] = self._one_of(("END",), ("a", "b"), tuple("abcdef"), ("",), (" ",))
        if self._some(0.1):
            options["seed"] = self._one_of(7, -1, 2**70)
        if tools and self._some(0.5):
            modes = ("auto", "none", "required", "tool")
            mode: Any = pick(modes)
            options["tool_choice"] = ToolChoice(mode, tools[0].name if mode == "tool" else None)
        if self._some(0.2):
            options["parallel_tool_calls"] = pick((True, False))
        if self._some(0.2):
            options["response_format"] = self._format()
        if self._some(0.2):
            options["reasoning_effort"] = self._one_of(
                pick(("none", "minimal", "low", "medium", "high", "xhigh", "max")), "huge", ""
            )
        if self._some(0.2):
            options["metadata"] = self._one_of({"team": "search"}, {"user_id": "u1"}, {}, {"": "x"}, {"a": ""})
        if tools:
            options["tools"] = tools
        return self._messages(), options

    def _format(self) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        usual = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        return self._one_of(
            usual,
            {"type": "json_object"},
            {"type": "text"},
            {"type": "json_schema", "json_schema": {"schema": schema}},
            {"type": "json_schema", "name": "flat", "schema": schema},
            {"type": "json_schema", "json_schema": {"name": "no schema"}},
            {"type": "json_schema"},
            {"type": "grammar"},
            {},
        )

    def _tool(self, number: int) -> Tool:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        return Tool(
            name=self._one_of(f"tool_{number}", *_NAMES),
            description=self._one_of("Weather for a city", "", "é😀"),
            parameters=self._one_of(schema, {}, {"properties": {}}, {"type": "object"}),
            strict=self._one_of(None, True, False),
        )

    def _messages(self) -> list[Message]:
        messages: list[Message] = []
        if self._some(0.4):
            messages.append(Message("system", self._parts("system")))
        for _ in range(self.random.randint(0, 2)):
            messages.append(Message("user", self._parts("user")))
            messages.append(Message("assistant", self._parts("assistant")))
            if self._calls and self._some(0.9):
                messages.append(Message("tool", tuple(self._result(call) for call in self._calls)))
                self._calls.clear()
        if self._some(0.1):
            messages.append(Message("system", self._parts("system")))
        messages.append(Message("user", (*self._parts("user"), TextPart(text="Go on."))))
        if self._some(0.1):
            messages.append(Message("assistant", (TextPart(text="I think"),)))
        return messages

    def _parts(self, role: str) -> tuple[Part, ...]:
        usual = {"system": "tttc", "user": "ttttidavc", "assistant": "ttttrsokkC"}[role]
        kinds = self._one_of(usual, "tidavcrsokCRSI")
        return tuple(self._part(self.random.choice(kinds)) for _ in range(self.random.choice((1, 1, 2, 3))))

    def _part(self, kind: str) -> Part:
        pick = self.random.choice
        match kind:
            case "t":
                return TextPart(text=self._one_of("Hello there", *_TEXTS))
            case "i" | "I":
                return ImagePart(**self._source(PNG), format=self._one_of("png", None, "jpg", "image/png", "PNG"))
            case "d":
                return DocumentPart(
                    **self._source(b"%PDF-1.4"),
                    format=self._one_of("pdf", "txt", ".md", "application/pdf", "HTML", "docx", "htm"),
                    name=self._one_of("Report 1", "", "a/b: c.pdf", "é" * 300, "  "),
                    citations=self._some(),
                )
            case "a":
                return AudioPart(**self._source(b"RIFF1234WAVE"), format=self._one_of("wav", "mp3", "ogg", "audio/wav"))
            case "v":
                return VideoPart(**self._source(b"video"), format=self._one_of("mp4", "3gp", "video/mp4", "mkv"))
            case "c":
                return CachePoint(ttl=self._one_of(None, "5m", "1h"))
            case "C":
                return self._citation()
            case "r":
                return ReasoningPart(text=self._one_of("Thinking…", "", " "), signature=pick((None, "c2ln", "")))
            case "R" | "s":
                return ReasoningPart(redacted=base64.b64encode(b"sealed").decode())
            case "S" | "o":
                return self._server_side()
            case _:
                call = self._call()
                self._calls.append(call.id)
                return call

    def _source(self, data: bytes) -> dict[str, Any]:
        return self._one_of(
            {"data": data},
            {"url": "https://example.com/a.png"},
            {"url": "s3://my-bucket/a.png"},
            {"url": "data:image/png;base64," + base64.b64encode(data).decode()},
            {"url": "data:image/png;base64,%%%"},
            {"url": "ftp://example.com/x"},
            {"url": ""},
            {"data": b""},
            {},
            {"data": data, "url": "https://example.com/a.png"},
        )

    def _citation(self) -> CitationPart:
        converse = {"documentChar": {"documentIndex": 0, "start": 0, "end": 4}}
        claude = {
            "type": "char_location",
            "cited_text": "x",
            "document_index": 0,
            "start_char_index": 0,
            "end_char_index": 1,
        }
        return CitationPart(
            title=self._one_of("Title", None, ""),
            source=self._one_of(None, "https://example.com", ""),
            quotes=self._one_of(("quote",), (), ("a", "b"), ("",)),
            location=self._one_of(converse, claude, None, {}, {"type": "url_citation", "url": "https://e.com"}),
        )

    def _server_side(self) -> Part:
        found = {"type": "web_search_result", "url": "https://e.com", "title": "t", "encrypted_content": "x"}
        claudes = self._some(0.5)
        name = "web_search" if claudes else "nova_code_interpreter"
        call_id = f"{'srvtoolu_' if claudes else 'tooluse_'}{self.random.randrange(3)}"
        if self._some(0.5):
            return ToolCallPart(id=call_id, name=name, arguments='{"query": "x"}', server_side=True)
        return ToolResultPart(
            tool_call_id=call_id,
            content=[found] if claudes else {"stdOut": "1"},
            name="web_search_tool_result" if claudes else name,
            server_side=True,
        )

    def _call(self) -> ToolCallPart:
        return ToolCallPart(
            id=self._one_of(f"call_{self.random.randrange(10**6)}", *_IDS),
            name=self._one_of("get_weather", *_NAMES),
            arguments=self._one_of('{"city": "Oslo"}', "{}", "", "[1]", '{"city": "Os', "null", '"text"', "é", "{}  "),
        )

    def _result(self, call_id: str) -> ToolResultPart:
        parts = [TextPart(text="22"), ImagePart(data=PNG)]
        return ToolResultPart(
            tool_call_id=call_id,
            content=self._one_of("22 degrees", "", " ", *_JSON, parts, parts[:1], [AudioPart(data=b"x", format="wav")]),
            is_error=self._some(0.2),
            name=self._one_of(None, "get_weather", "web_search_tool_result"),
        )
