"""What a caller saw, judged; and the page and the README's summary, made from nothing but the results."""

from __future__ import annotations

__all__ = ["PAGE", "judge", "page", "rewrite", "summary", "with_summary"]

import re
from collections.abc import Mapping, Sequence
from typing import Any

from apex_llm.emulator import RecordedRequest
from benchmarks.harness import ROOT
from benchmarks.peers.cases import CASES, GOOD_TEXT, PlayedCase

PAGE = ROOT / "docs" / "reference" / "peers-under-faults.md"
_README = ROOT / "README.md"
_HANGS_AFTER = 6.0
_HONOURED = 0.95
"""Of the time that the server asked for: clocks differ a little between the ends."""
_MUCH_MEMORY = 32
_OWN_MODULES = {"boto3": {"boto3", "botocore"}, "litellm": {"litellm", "openai"}}
"""Where a client's own errors live, if not under its own name. litellm says that it raises openai's."""
_WIRES = {"bedrock": "Bedrock", "azure": "Azure"}
_KINDS = {
    "answer": "the answer",
    "own": "own error",
    "foreign": "foreign error",
    "wrong": "wrong success",
    "altered": "other text",
    "hangs": "hangs",
}


def judge(
    name: str, case: PlayedCase, caller: Mapping[str, Any], requests: Sequence[RecordedRequest]
) -> dict[str, Any]:
    """The kind of outcome (a key of the page's legend) with the facts behind it.

    Args:
        name: The client and its wire.
        case: What was played.
        caller: What the driver says that its caller saw.
        requests: What the server saw; the first one is the good call that warms up.
    """
    if "unusable" in caller or "crashed" in caller:
        return {"kind": "unusable", "error": caller.get("unusable", "The process ended.")}
    outcome: dict[str, Any] = {"sends": len(requests) - 1}
    if len(requests) > 2:
        outcome["waited"] = round(requests[2].received_at - requests[1].received_at, 2)
    elsewhere = [request for request in requests if (request.headers.get("host") or "").startswith("localhost")]
    if elsewhere:
        secrets = [header for header in ("api-key", "authorization") if elsewhere[0].headers.get(header)]
        return outcome | {"kind": "redirect", "secrets": secrets}
    if caller.get("hangs") or caller["seconds"] > _HANGS_AFTER:
        return outcome | {"kind": "hangs"}
    outcome["seconds"] = caller["seconds"]
    # Elsewhere it would only show what a client imports late.
    if case.name == "small-gzip-bomb" and caller["mebibytes"] >= _MUCH_MEMORY:
        outcome["mebibytes"] = caller["mebibytes"]
    if caller.get("given"):
        return outcome | {"kind": "wrong", "characters": len(caller["text"]), "misses": caller["error"]}
    if "error" in caller:
        package = name.partition("/")[0]
        own = caller["modules"][0].partition(".")[0] in _OWN_MODULES.get(package, {package})
        return outcome | {"kind": "own" if own else "foreign", "error": caller["error"]}
    text, outcome["reason"] = caller["text"], caller["reason"]
    if text == GOOD_TEXT:
        return outcome | {"kind": "answer"}
    if len(text) < len(GOOD_TEXT):
        return outcome | {"kind": "wrong", "characters": len(text)}
    return outcome | {"kind": "altered", "text": text}


def _cell(outcome: Mapping[str, Any] | None, case: PlayedCase) -> str:
    if outcome is None:
        return "-"
    kind = outcome["kind"]
    if case.told is not None and outcome.get("waited") is not None:
        told = "" if outcome["waited"] >= _HONOURED * case.told else ", **too soon**"
        result = _KINDS[kind] if kind == "answer" else f"`{outcome.get('error', kind)}`"
        return f"asks again after {outcome['waited']:.1f} s{told}; {result}"
    if case.told is not None and kind == "hangs":
        return "still waits when it is stopped"
    mark = "" if outcome.get("reason") or "error" in outcome else " †"
    if "misses" in outcome:
        return f"**WRONG SUCCESS**, without a text to read (`{outcome['misses']}` in the caller's own code)"
    words = {
        "answer": f"the answer{mark}",
        "own": f"`{outcome.get('error')}`",
        "foreign": f"**foreign** `{outcome.get('error')}`",
        "wrong": f"**WRONG SUCCESS**, {outcome.get('characters')} of {len(GOOD_TEXT)} characters{mark}",
        "altered": f"**other text**{mark}",
        "hangs": "**hangs**",
        "redirect": "**follows**"
        + (f", and sends {' and '.join(outcome.get('secrets', []))}" if outcome.get("secrets") else ""),
        "unusable": "does not run",
    }[kind]
    return words + (f" (+{outcome['mebibytes']} MiB)" if "mebibytes" in outcome else "")


def _columns(results: Mapping[str, Any], wire: str) -> dict[str, Mapping[str, Any]]:
    clients = results["clients"]
    return {name: clients[name]["seen"] for name in clients if name.endswith(f"/{wire}") and "seen" in clients[name]}


def _label(name: str) -> str:
    return name.partition("/")[0]


def _table(results: Mapping[str, Any], wire: str, group: str) -> list[str]:
    columns = _columns(results, wire)
    lines = [
        "| fault | the server | " + " | ".join(map(_label, columns)) + " |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for case in CASES:
        if case.group == group and case.strikes(wire):
            shown = "Nothing is wrong." if case.fault is None else case.fault.summary
            cells = [_cell(seen.get(group, {}).get(case.name), case) for seen in columns.values()]
            lines.append(f"| {'' if case.fault is None else f'`{case.name}`'} | {shown} | " + " | ".join(cells) + " |")
    return lines


def _counts(results: Mapping[str, Any], group: str) -> list[tuple[str, str, int, dict[str, int]]]:
    """Client, wire, faults that were played, and how many had each outcome."""
    rows = []
    for wire in _WIRES:
        for name, seen in _columns(results, wire).items():
            kinds = [outcome["kind"] for case, outcome in seen.get(group, {}).items() if case != "nothing"]
            rows.append((_label(name), wire, len(kinds), {kind: kinds.count(kind) for kind in (*_KINDS, "redirect")}))
    return rows


def _count_table(results: Mapping[str, Any], group: str) -> list[str]:
    kinds = dict(_KINDS) if group == "stream" else _KINDS | {"redirect": "follows elsewhere"}
    lines = [
        "| client | wire | faults | " + " | ".join(kinds.values()) + " |",
        "|---|---" + "|---:" * (1 + len(kinds)) + "|",
    ]
    for label, wire, total, counted in _counts(results, group):
        figures = " | ".join(str(counted[kind]) for kind in kinds)
        lines.append(f"| {label} | {_WIRES[wire]} | {total} | {figures} |")
    return lines


def _versions(results: Mapping[str, Any]) -> str:
    versions = {_label(name): client.get("version") for name, client in results["clients"].items()}
    return ", ".join(f"{label} {version}" for label, version in versions.items() if version)


def _missing(results: Mapping[str, Any]) -> list[str]:
    return [
        f"{_label(name)} on {_WIRES[name.partition('/')[2]]} is not in this run: {client['missing']}."
        for name, client in results["clients"].items()
        if "missing" in client
    ]


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# Other clients under the same faults",
        "",
        f"<!-- Written by {results['command']} from benchmarks/results/peers_under_faults.json; do not edit. -->",
        "",
        "The [emulator's faults](faults.md), and three more, played on a real socket to other people's clients and to",
        "ours, in their newest releases and in environments of their own.",
        "",
        f"Run on {results['date']} with Python {results['python']}: {_versions(results)}.",
        *_missing(results),
        f"Again: `{results['command']}`.",
        "",
        f"Every client has a timeout of {results['timeout']:g} s, set as its documentation says, and its retries are",
        "off but for the last tables. boto3 calls Converse and blocks; anthropic's `AsyncAnthropicBedrock` calls",
        "InvokeModel and its streams are read through `messages.stream`; openai is `AsyncAzureOpenAI`; litellm is",
        "`acompletion` with `bedrock/converse/` and `azure/`, and has tenacity beside it, which its retries need; ours",
        "are the async providers, on Converse and on chat completions. What the table says is",
        f"what the caller saw of a text of {len(GOOD_TEXT)} characters:",
        "",
        "- **the answer**: all of the text, and no error. Some faults do no harm to the text, and then that is no",
        "  worse than the error of a stricter client: `truncated-stream`, `short-body`, `length-and-chunked`, bomb.",
        "- an error's name: the client's own class (of botocore for boto3, and of openai for litellm, which says so).",
        "- **foreign**: the error of a library underneath, which no `except` for the client's own errors catches.",
        "- **WRONG SUCCESS**: a text that is shorter than the whole, or empty, or nothing where a text would be, and",
        "  no error.",
        "- **other text**: not shorter, but not what was to be said either, and no error.",
        f"- **hangs**: more than {_HANGS_AFTER:g} s, twice the timeout; after {results['kill_after']:g} s the process",
        "  is killed.",
        "- **follows**: the call is made again at another origin, and what of its secrets goes there.",
        "- †: there was no reason why the answer ended, so a caller who looks at it can tell. Where the mark is",
        "  missing, the client gave a reason.",
        f"- (+ MiB): for the bomb, the process grew by that much, if by {_MUCH_MEMORY} MiB or more.",
        "",
    ]
    for group, title in (("stream", "Streams"), ("whole", "Calls that are not streamed")):
        lines += [f"## {title}", "", *_count_table(results, group), ""]
        for wire, cloud in _WIRES.items():
            lines += [f"### {title}, {cloud}", "", *_table(results, wire, group), ""]
    lines += [
        "## Waits that the server asks for",
        "",
        "Here two retries are allowed, by each client's own option; the first attempt is throttled, any other is",
        "answered.",
        "An error at once is as good as waiting where the wait would be an hour. The first two headers are Azure's; on",
        "Bedrock it is a gateway in between that would send them.",
        "",
    ]
    for wire, cloud in _WIRES.items():
        lines += [f"### Waits, {cloud}", "", *_table(results, wire, "retry"), ""]
    return "\n".join(lines)


def summary(results: Mapping[str, Any]) -> str:
    """What the README quotes: the counts of streams, and of what they are."""
    run = f"Run on {results['date']}: {_versions(results)}."
    return "\n".join([*_count_table(results, "stream"), "", run, *_missing(results)])


def with_summary(text: str, results: Mapping[str, Any]) -> str:
    """``text`` with what stands between the marks ``<!-- peers -->`` and ``<!-- /peers -->`` made anew."""
    marked = re.compile(r"(<!-- peers -->\n).*?(<!-- /peers -->)", re.DOTALL)
    text, found = marked.subn(lambda match: f"{match[1]}\n{summary(results)}\n\n{match[2]}", text)
    if not found:
        raise ValueError("The README has no place marked 'peers'.")
    return text


def rewrite(results: Mapping[str, Any]) -> None:
    """Write the page, and the README's summary in place."""
    PAGE.write_text(page(results), "utf-8")
    _README.write_text(with_summary(_README.read_text("utf-8"), results), "utf-8")
