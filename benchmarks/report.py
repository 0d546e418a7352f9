"""Figures to tables: medians, ratios taken round by round, and the bars that they are held to."""

from __future__ import annotations

__all__ = ["BARS", "Bar", "Result", "bars_table", "conditions", "figures_table", "lists_table", "median", "ratio"]

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Result: TypeAlias = Mapping[str, Any]
"""What a results file holds: ``metrics``, ``figures`` (metric, variant, rounds of figures), facts of the run."""

OURS = "apex_llm"
_COLUMNS = (
    ("apex_llm", "limit", "httpx", "httpx, signed", "aiobotocore", "boto3", "openai"),
    ("python", "apex_llm", "apex_llm, a provider", "apex_llm, azure", "apex_llm.sync", "limit", "asyncio"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held to: an absolute ``most``, or a ratio of another variant's figure to ours.

    ``least`` is how many times cheaper than ``against`` we must be; ``most`` with ``against`` is how many
    times dearer we may be.
    """

    benchmark: str
    metric: str
    words: str
    against: str | None = None
    least: float | None = None
    most: float | None = None
    variant: str = OURS
    figure: str = "value"


BARS: Sequence[Bar] = (
    Bar("event_loop", "gap", "Longest gap: streams, refresh, import of aiobotocore (ms)",
        most=50, variant="streams, refresh, import"),
    Bar("call", "bedrock_hundred", "CPU per call, 100 at a time", against="aiobotocore", least=6),
    Bar("call", "bedrock_hundred", "CPU per call, 100 at a time", against="boto3", least=8),
    Bar("call", "bedrock_hundred", "CPU per call, 100 at a time", against="limit", most=4.7),
    Bar("call", "bedrock_one", "CPU per call, one at a time", against="aiobotocore", least=4),
    Bar("call", "bedrock_one", "CPU per call, one at a time", against="boto3", least=4),
    Bar("call", "bedrock_one", "CPU per call, one at a time", against="limit", most=2.25),
    Bar("call", "azure_hundred", "CPU per call on Azure, 100 at a time", against="openai", least=18),
    Bar("call", "azure_one", "CPU per call on Azure, one at a time", against="openai", least=7),
    Bar("chunk", "bedrock_fifty", "CPU per piece, 50 streams in bursts", against="aiobotocore", least=5),
    Bar("chunk", "bedrock_fifty", "CPU per piece, 50 streams in bursts", against="boto3", least=5),
    Bar("chunk", "bedrock_fifty", "CPU per piece, 50 streams in bursts", against="limit", most=1.9),
    Bar("chunk", "azure_fifty", "CPU per piece on Azure, 50 streams in bursts", against="openai", least=25),
    Bar("chunk", "azure_fifty", "CPU per piece on Azure, 50 streams in bursts", against="limit", most=1.75),
    Bar("chunk", "bedrock_paced", "CPU per piece, 50 streams, paced", against="aiobotocore", least=1.2),
    Bar("chunk", "bedrock_paced", "CPU per piece, 50 streams, paced", against="boto3", least=1.2),
    Bar("chunk", "azure_paced", "CPU per piece on Azure, 50 streams, paced", against="openai", least=3),
    Bar("first_chunk", "bedrock_first", "Time to the first piece", against="aiobotocore", least=3),
    Bar("first_chunk", "bedrock_first", "Time to the first piece", against="boto3", least=3),
    Bar("first_chunk", "bedrock_first", "Time to the first piece", against="limit", most=1.7),
    Bar("first_chunk", "azure_first", "Time to the first piece on Azure", against="openai", least=6),
    Bar("cold_start", "cold", "Process to first answer", against="boto3", least=1.4),
    Bar("cold_start", "cold", "Process to first answer", against="aiobotocore", least=2),
    Bar("cold_start", "cold", "Process to first answer on Azure", against="openai", least=3, variant="apex_llm, azure"),
    Bar("cold_start", "cold", "Process to first answer (ms)", most=160),
)  # fmt: skip


def median(result: Result, metric: str, variant: str, figure: str = "value") -> float | None:
    """The median over the rounds; ``None`` where it was not measured."""
    rounds = result["figures"].get(metric, {}).get(variant)
    return statistics.median(entry[figure] for entry in rounds) if rounds else None


def ratio(result: Result, metric: str, variant: str, base: str) -> float | None:
    """How many times the figure of ``base`` that of ``variant`` is: the median of the ratios of each round."""
    figures = result["figures"].get(metric, {})
    rounds, base_rounds = figures.get(variant), figures.get(base)
    if not rounds or not base_rounds:
        return None
    return statistics.median(one["value"] / other["value"] for one, other in zip(rounds, base_rounds, strict=False))


def figures_table(results: Mapping[str, Result]) -> str:
    """One Markdown table of the comparable benchmarks: medians, with the ratio to ours in brackets."""
    wide = [results[name] for name in ("call", "chunk", "first_chunk") if name in results]
    lines: list[str] = []
    if wide:
        columns = [name for name in _COLUMNS[0] if any(name in row for one in wide for row in one["figures"].values())]
        lines += [
            f"| | {' | '.join(columns)} |",
            f"|---|{'---:|' * len(columns)}",
        ]
        for one in wide:
            lines.append(f"| **{one['question']}, {one['unit']}** |{' |' * len(columns)}")
            for metric, words in one["metrics"].items():
                if one["figures"].get(metric):
                    cells = " | ".join(_cell(one, metric, name) for name in columns)
                    lines.append(f"| {words} | {cells} |")
    return "\n".join(lines)


def lists_table(results: Mapping[str, Result]) -> str:
    """The benchmarks whose cases are not clients of one wire: a line each."""
    lines = ["| | median | ratio | CPU |", "|---|---:|---:|---:|"]
    for name in ("import", "cold_start", "event_loop"):
        one = results.get(name)
        if one is None:
            continue
        lines.append(f"| **{one['question']}, {one['unit']}** | | | |")
        for metric in one["metrics"]:
            for variant in one["figures"].get(metric, {}):
                value, cpu = median(one, metric, variant), median(one, metric, variant, "cpu")
                times = ratio(one, metric, variant, OURS)
                lines.append(
                    f"| {variant} | {_number(value)} | {'' if times is None or variant == OURS else _times(times)} "
                    f"| {_number(cpu)} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def bars_table(results: Mapping[str, Result]) -> str:
    """Every bar with what was measured; by how much it is missed, where it is."""
    lines = ["| | bar | measured | |", "|---|---:|---:|---|"]
    for bar in BARS:
        one = results.get(bar.benchmark)
        if one is None:
            continue
        if bar.against is None:
            assert bar.most is not None
            value = median(one, bar.metric, bar.variant, bar.figure)
            lines += _bar_line(bar.words, f"≤ {bar.most:g}", value, value is not None and value <= bar.most, bar.most)
        elif bar.least is not None:
            value = ratio(one, bar.metric, bar.against, bar.variant)
            words = f"{bar.words}: times cheaper than {bar.against}"
            lines += _bar_line(words, f"≥ {bar.least:g}", value, value is not None and value >= bar.least, bar.least)
        else:
            assert bar.most is not None
            value = ratio(one, bar.metric, bar.variant, bar.against)
            words = f"{bar.words}: times the {bar.against}"
            lines += _bar_line(words, f"≤ {bar.most:g}", value, value is not None and value <= bar.most, bar.most)
    return "\n".join(lines) if len(lines) > 2 else ""


def _bar_line(words: str, wanted: str, value: float | None, met: bool, bar: float) -> list[str]:
    if value is None:
        return []
    verdict = "met" if met else f"**missed by {max(value / bar, bar / value) - 1:.0%}**"
    return [f"| {words} | {wanted} | {_number(value)} | {verdict} |"]


def conditions(results: Mapping[str, Result]) -> str:
    """Under which conditions the figures were taken."""
    one = next(iter(results.values()))
    machine, versions = one["machine"], one["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    busiest = max(
        (entry["server_busy"] for result in results.values() for row in result["figures"].values()
         for rounds in row.values() for entry in rounds if "server_busy" in entry),
        default=None,
    )  # fmt: skip
    heavy = next((result["heavy"] for result in results.values() if "heavy" in result), None)
    pinned = "client and server pinned to a core each" if machine["pinned"] else "processes not pinned"
    processor = f", {machine['processor']}" if machine["processor"] else ""
    load = f"load average {machine['load_before']:g} at the start"
    place = f"{machine['system']} {machine['architecture']}, {machine['cores']} cores{processor}"
    lines = [
        f"- Taken on {one['date']} with `{one['command']}`: {one['rounds']} rounds, {load}.",
        f"- {machine['python']} on {place}; {pinned}.",
        f"- {named}.",
    ]
    if machine["load_before"] > machine["cores"] / 2:
        lines.append(
            "- **The machine was busy with other work.** CPU times are too high for all, wall times (first piece, "
            "start, gap) are those of a queue; only ratios of CPU times say something. Run it again on a quiet machine."
        )
    if busiest is not None:
        lines.append(f"- The server was busy for at most {busiest:.0%} of the time of any measurement.")
    if heavy is not None:
        lines.append(
            "- `python -X importtime -c 'import apex_llm'` loads "
            + (f"**{', '.join(heavy)}**." if heavy else "no httpx, pydantic, botocore or asyncio.")
        )
    return "\n".join(lines)


def _cell(result: Result, metric: str, variant: str) -> str:
    value = median(result, metric, variant)
    if value is None:
        return ""
    times = None if variant == OURS else ratio(result, metric, variant, OURS)
    return f"**{_number(value)}**" if times is None else f"{_number(value)} ({_times(times)})"


def _times(value: float) -> str:
    digits = 2 if value < 2 else 1 if value < 10 else 0
    return f"{value:.{digits}f}x"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
