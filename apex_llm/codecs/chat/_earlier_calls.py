"""Ids and names of earlier tool calls, as the next service takes them.

A conversation may go on with another model than it began with, and each service has its own idea of an id:
Kimi writes ``functions.weather:0``, which Claude refuses; Converse takes 64 characters, OpenAI 40. What a
service takes stays as it is. Anything else is exchanged for what follows from it alone, so that a call and
its result still belong together, in every later turn too.
"""

from __future__ import annotations

__all__ = ["called_name", "fitting_call_id", "known_here", "tools_in_history"]

from collections.abc import Iterable, Sequence

from apex_llm.types.coerce import NAME_CHARACTERS, is_tool_name
from apex_llm.types.messages import Part, ToolCallPart, ToolResultPart

_CLAUDES = "srvtoolu_"


def fitting_call_id(call_id: str, *, longest: int, characters: frozenset[str] | None = NAME_CHARACTERS) -> str:
    """The id, or a stand-in for it.

    Args:
        call_id: As the service wrote it that made the call.
        longest: How many characters the next service takes.
        characters: Which ones it takes; ``None`` for any.
    """
    if 0 < len(call_id) <= longest and (characters is None or characters.issuperset(call_id)):
        return call_id
    import hashlib  # of ids of other services only

    return f"call_{hashlib.sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:32]}"


def called_name(name: str, warnings: list[str]) -> str:
    """The name by which a tool was called; models that made one up leave names that no service takes back."""
    if is_tool_name(name):
        return name
    repaired = "".join([letter if letter in NAME_CHARACTERS else "_" for letter in name[:64]]) or "unknown_tool"
    warnings.append(f"repaired: the name of an earlier tool call, {name[:80]!r}, was sent as {repaired!r}")
    return repaired


def known_here(parts: Sequence[Part], *, vendor: str) -> Sequence[Part]:
    """The parts without the calls, and their results, that another vendor's service ran by itself.

    Args:
        parts: Of one message of the assistant.
        vendor: Who made the model that goes on; empty where its id does not say.
    """
    elsewhere: set[str] = set()
    for part in parts:
        if isinstance(part, ToolCallPart | ToolResultPart) and part.server_side:
            call_id, name = _call_id(part), part.name or ""
            if name.startswith("nova_"):
                at_home = vendor in {"amazon", ""}
            elif name.endswith("_tool_result") or call_id.startswith(_CLAUDES):
                at_home = vendor in {"anthropic", ""}
            else:
                at_home = True
            if not at_home:
                elsewhere.add(call_id)
    if not elsewhere:
        return parts
    return [
        part for part in parts if not isinstance(part, ToolCallPart | ToolResultPart) or _call_id(part) not in elsewhere
    ]


def _call_id(part: ToolCallPart | ToolResultPart) -> str:
    return part.id if isinstance(part, ToolCallPart) else part.tool_call_id


def tools_in_history(turns: Iterable[tuple[str, Sequence[Part]]], *, vendor: str) -> dict[str, bool]:
    """Names of tools that the history tells this vendor's models of, in order, and whether the provider ran them."""
    names: dict[str, bool] = {}
    unnamed = False
    for _, parts in turns:
        for part in known_here(parts, vendor=vendor):
            if isinstance(part, ToolCallPart):
                names.setdefault(called_name(part.name, []), part.server_side)
            elif isinstance(part, ToolResultPart):
                unnamed = True
    if unnamed and not names:
        names["unknown_tool"] = False
    return names
