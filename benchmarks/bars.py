"""What the figures are held to, and by how much each bar is met or missed."""

from __future__ import annotations

__all__ = ["BARS", "Bar", "Result", "bars_table", "median", "missed", "number", "ratio"]

import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks.clients import PEERS

Result: TypeAlias = Mapping[str, Any]
"""What a results file holds: ``metrics``, ``figures`` (metric, variant, rounds of figures), facts of the run."""

OURS = "apex_llm"
WHY = Path(__file__).resolve().parent / "why_missed.toml"
_ANY_PEER = "any peer"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held to.

    ``times``: at most so many times the figure of ``against``; ``better``: at least so many times better than it;
    ``over``: at most so much more than it; ``most``: at most so much.
    """

    key: str
    """By which ``why_missed.toml`` names it."""
    benchmark: str
    metric: str
    words: str
    how: Literal["times", "better", "over", "most"]
    bar: float
    against: str = ""
    variant: str = OURS
    figure: str = "value"


def _of_both_wires(
    key: str, benchmark: str, metric: str, words: str, how: Literal["times"], bar: float, against: str, figure: str = ""
) -> list[Bar]:
    return [
        Bar(f"{wire}-{key}", benchmark, f"{wire}_{metric}", f"{words}, {place}", how, bar, against, OURS,
            figure or "value")
        for wire, place in (("bedrock", "Bedrock"), ("azure", "Azure"))
    ]  # fmt: skip


BARS: Sequence[Bar] = (
    *_of_both_wires("call", "call", "hundred", "CPU per call, 100 at once", "times", 2.5, "limit"),
    Bar("call-aiobotocore", "call", "bedrock_hundred", "CPU per call, 100 at once", "better", 10, "aiobotocore"),
    *_of_both_wires("piece-one", "chunk", "one", "CPU per piece, one stream", "times", 1.5, "limit"),
    *_of_both_wires("piece-fifty", "chunk", "fifty", "CPU per piece, 50 streams", "times", 1.5, "limit"),
    Bar("piece-boto3", "chunk", "bedrock_fifty", "CPU per piece, 50 streams", "better", 6, "boto3"),
    Bar("piece-aiobotocore", "chunk", "bedrock_fifty", "CPU per piece, 50 streams", "better", 6, "aiobotocore"),
    Bar("piece-openai", "chunk", "azure_fifty", "CPU per piece, 50 streams", "better", 30, "openai"),
    *_of_both_wires("paced", "paced", "paced", "CPU per paced piece", "times", 1.25, "bare"),
    Bar("paced-boto3", "paced", "bedrock_paced", "CPU per paced piece", "better", 1, "boto3"),
    Bar("paced-aiobotocore", "paced", "bedrock_paced", "CPU per paced piece", "better", 1, "aiobotocore"),
    *_of_both_wires("first", "first_chunk", "first", "First piece, p50", "times", 1.5, "limit"),
    Bar("first-boto3", "first_chunk", "bedrock_first", "First piece, p50", "better", 3, "boto3"),
    # 100 ms where boto3 takes 228: a ratio, since other machines are faster or slower.
    Bar("cold", "cold_start", "cold", "Cold process to first answer", "better", 2.28, "boto3"),
    Bar("import", "import", "import", "`import apex_llm` over bare Python, ms", "over", 40, "python"),
    *_of_both_wires("slow-wall", "slow_streams", "thousand", "1,000 slow streams, wall time", "times", 1.15, "limit"),
    *_of_both_wires("slow-late", "slow_streams", "thousand", "1,000 slow streams, p99 lateness", "times", 1.75,
                    "limit", "late_p99"),
    *_of_both_wires("slow-five", "slow_streams", "five_thousand", "5,000 slow streams, wall time", "times", 1.3,
                    "limit"),
    Bar("sync-bedrock", "sync", "bedrock_piece", "Sync twin, CPU per piece of a fast stream, Bedrock", "times", 4,
        OURS, "apex_llm.sync"),
    Bar("sync-azure", "sync", "azure_piece", "Sync twin, CPU per piece of a fast stream, Azure", "times", 4,
        OURS, "apex_llm.sync"),
    Bar("memory-bedrock", "slow_streams", "bedrock_thousand", "Memory per open stream, Bedrock", "better", 1,
        _ANY_PEER, OURS, "memory_kb"),
    Bar("memory-azure", "slow_streams", "azure_thousand", "Memory per open stream, Azure", "better", 1,
        _ANY_PEER, OURS, "memory_kb"),
    Bar("growth-bedrock-length", "growth", "bedrock_length", "Exponent in the length of a stream, Bedrock", "most",
        1.05),
    Bar("growth-azure-length", "growth", "azure_length", "Exponent in the length of a stream, Azure", "most", 1.05),
    Bar("growth-bedrock-streams", "growth", "bedrock_streams", "Exponent in open streams, Bedrock", "most", 1.05),
    Bar("growth-azure-streams", "growth", "azure_streams", "Exponent in open streams, Azure", "most", 1.05),
    Bar("growth-bedrock-memory", "growth", "bedrock_length", "Memory that 100,000 pieces (20 MB) add, KB", "most",
        1024, figure="kb_100000"),
    Bar("growth-azure-memory", "growth", "azure_length", "Memory that 100,000 pieces (50 MB) add, KB", "most",
        1024, figure="kb_100000"),
)  # fmt: skip


def median(result: Result, metric: str, variant: str, figure: str = "value") -> float | None:
    """The median over the rounds; ``None`` where it was not measured."""
    rounds = result["figures"].get(metric, {}).get(variant)
    values = [entry[figure] for entry in rounds or () if figure in entry]
    return statistics.median(values) if values else None


def ratio(result: Result, metric: str, variant: str, base: str, figure: str = "value") -> float | None:
    """How many times the figure of ``base`` that of ``variant`` is: the median of the ratios of each round."""
    figures = result["figures"].get(metric, {})
    ratios = [
        one[figure] / other[figure]
        for one, other in zip(figures.get(variant, ()), figures.get(base, ()), strict=False)
        if one.get(figure) is not None and other.get(figure)
    ]
    return statistics.median(ratios) if ratios else None


def measured(bar: Bar, result: Result) -> tuple[float, str] | None:
    """What a bar's figure came to, and the other figure that it was held against; ``None`` if one is missing."""
    row = result["figures"].get(bar.metric, {})
    against = bar.against
    if against == _ANY_PEER:
        peers = {peer: median(result, bar.metric, peer, bar.figure) for peer in PEERS if peer in row}
        against = min(
            (peer for peer in peers if peers[peer] is not None), key=lambda peer: peers[peer] or 0, default=""
        )
    ours = median(result, bar.metric, bar.variant, bar.figure)
    if ours is None or (bar.against and median(result, bar.metric, against, bar.figure) is None):
        return None
    if bar.how == "most":
        return ours, ""
    if bar.how == "over":
        pairs = zip(row[bar.variant], row[against], strict=False)
        return statistics.median(one[bar.figure] - other[bar.figure] for one, other in pairs), against
    pair = (bar.variant, against) if bar.how == "times" else (against, bar.variant)
    value = ratio(result, bar.metric, *pair, figure=bar.figure)
    return None if value is None else (value, against)


def missed(bar: Bar, value: float) -> float:
    """By what part a bar is missed: 0 if it is met."""
    if bar.how == "better":
        return max(0.0, bar.bar / value - 1) if value > 0 else 1.0
    return max(0.0, value / bar.bar - 1)


def bars_table(results: Mapping[str, Result]) -> str:
    """Every bar with what was measured and by how much it is met or missed; under it, why those are that are missed."""
    why: dict[str, str] = tomllib.loads(WHY.read_text("utf-8"))
    lines = ["| measure | bar | measured | |", "|---|---|---:|---|"]
    reasons: list[str] = []
    for bar in BARS:
        result = results.get(bar.benchmark)
        found = measured(bar, result) if result is not None else None
        if result is None or found is None:
            continue
        value, against = found
        lacking = missed(bar, value)
        verdict = f"**missed by {max(lacking, 0.01):.0%}**" if lacking else f"met{_spare(bar, value)}"
        lines.append(f"| {bar.words} | {_wanted(bar)} | {_measured_words(bar, result, value, against)} | {verdict} |")
        if lacking:
            reasons.append(f"- *{bar.words}, {_wanted(bar)}*: {why.get(bar.key) or 'not explained yet.'}")
    if len(lines) == 2:
        return ""
    return "\n".join([*lines, *(["", "Why those are missed, and what was tried:", "", *reasons] if reasons else [])])


def _wanted(bar: Bar) -> str:
    if bar.how == "times":
        return f"≤ {bar.bar:g} x {'the async figure' if bar.against == OURS else bar.against}"
    if bar.how == "better":
        return f"better than {bar.against}" if bar.bar == 1 else f"≥ {bar.bar:g} x better than {bar.against}"
    return f"≤ {bar.bar:g}"


def _measured_words(bar: Bar, result: Result, value: float, against: str) -> str:
    if bar.how in {"most", "over"}:
        return number(value)
    ours = number(median(result, bar.metric, bar.variant, bar.figure))
    theirs = number(median(result, bar.metric, against, bar.figure))
    unit = {"memory_kb": " KB", "late_p99": " ms"}.get(bar.figure, f" {result['unit']}")
    rival = f"{against} {theirs}" if bar.against == _ANY_PEER else theirs
    return f"{number(value)} x ({ours} : {rival}{unit})"


def _spare(bar: Bar, value: float) -> str:
    if bar.how == "better":
        return f", {value / bar.bar - 1:.0%} to spare"
    return f", {1 - max(value, 0.0) / bar.bar:.0%} to spare"


def number(value: float | None) -> str:
    """For people."""
    if value is None:
        return ""
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
