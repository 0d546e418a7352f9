"""Figures to tables: medians, with the ratio to ours taken round by round."""

from __future__ import annotations

__all__ = ["clients_table", "conditions", "details", "processes_table", "question_table", "sections"]

from collections.abc import Mapping, Sequence

from benchmarks.bars import OURS, Result, bars_table, median, number, ratio
from benchmarks.clients import FLOORS, PEERS

_ORDER = (OURS, "apex_llm.sync", "bare", *FLOORS, *PEERS)
_WIRES = {"bedrock": "Bedrock", "azure": "Azure"}
_HEADLINES: Sequence[tuple[str, str, str, str]] = (
    ("a call, 100 at once, µs", "call", "{wire}_hundred", "value"),
    ("a piece, µs", "chunk", "{wire}_fifty", "value"),
    ("a paced piece, µs", "paced", "{wire}_paced", "value"),
    ("first piece, µs", "first_chunk", "{wire}_first", "value"),
    ("cold start, ms", "cold_start", "cold", "value"),
    ("1,000 streams, s", "slow_streams", "{wire}_thousand", "value"),
    ("memory of one, KB", "slow_streams", "{wire}_thousand", "memory_kb"),
)
_BY_CLIENT = ("call", "chunk", "paced", "first_chunk", "sync", "large_json", "tls")
_SLOW_COLUMNS = {
    "value": "wall, s",
    "late_p99": "p99 late, ms",
    "lag": "loop lag, ms",
    "cpu": "CPU, s",
    "memory_kb": "KB a stream",
}


def sections(results: Mapping[str, Result]) -> dict[str, str]:
    """What stands at each marked place of the page."""
    return {
        "conditions": conditions(results),
        "bars": bars_table(results),
        "clients": clients_table(results),
        "details": details(results),
        "processes": processes_table(results),
    }


def clients_table(results: Mapping[str, Result]) -> str:
    """The headlines: a line for each client of each wire."""
    columns = [headline for headline in _HEADLINES if headline[1] in results]
    if not columns:
        return ""
    lines = [f"| | {' | '.join(words for words, *_ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for wire, place in _WIRES.items():
        lines.append(f"| **{place}** |{' |' * len(columns)}")
        for variant in _ORDER:
            cells = [
                _start_cell(results[name], wire, variant)
                if name == "cold_start"
                else _cell(results[name], metric.format(wire=wire), variant, figure=figure)
                for _, name, metric, figure in columns
            ]
            if sum(map(bool, cells)) > 1:
                lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _start_cell(result: Result, wire: str, variant: str) -> str:
    """Each client starts on one wire, and ours on both."""
    base = "apex_llm, azure" if wire == "azure" else OURS
    if variant == OURS:
        return _cell(result, "cold", base, base=base)
    return _cell(result, "cold", variant, base=base) if (variant == "openai") == (wire == "azure") else ""


def details(results: Mapping[str, Result]) -> str:
    """Every question but those about whole processes, with a heading each."""
    parts: list[str] = []
    for name, result in results.items():
        if name in _BY_CLIENT:
            table = question_table(result)
        elif name == "slow_streams":
            table = _slow_table(result)
        elif name == "growth":
            table = _growth_table(result)
        elif name in {"components", "server"}:
            table = _metric_table(result)
        else:
            continue
        unit = f", {result['unit']}" if result["unit"] and name != "slow_streams" else ""
        parts.append(f"### {result['question']}{unit}\n\n{table}")
    return "\n\n".join(parts)


def question_table(result: Result) -> str:
    """A line for each client, a column for each metric."""
    metrics = [metric for metric in result["metrics"] if result["figures"].get(metric)]
    lines = [f"| | {' | '.join(result['metrics'][metric] for metric in metrics)} |", f"|---|{'---:|' * len(metrics)}"]
    for variant in _ORDER:
        cells = [_cell(result, metric, variant) for metric in metrics]
        if any(cells):
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _metric_table(result: Result) -> str:
    """A line for each metric, a column for each variant."""
    variants = list(dict.fromkeys(variant for row in result["figures"].values() for variant in row))
    lines = [f"| | {' | '.join(variants)} |", f"|---|{'---:|' * len(variants)}"]
    for metric, words in result["metrics"].items():
        if result["figures"].get(metric):
            lines.append(f"| {words} | {' | '.join(_cell(result, metric, variant) for variant in variants)} |")
    return "\n".join(lines)


def _slow_table(result: Result) -> str:
    lines = [f"| | {' | '.join(_SLOW_COLUMNS.values())} |", f"|---|{'---:|' * len(_SLOW_COLUMNS)}"]
    for metric, words in result["metrics"].items():
        row = result["figures"].get(metric)
        if not row:
            continue
        lines.append(f"| **{words}** |{' |' * len(_SLOW_COLUMNS)}")
        for variant in _ORDER:
            entries = row.get(variant)
            if not entries:
                continue
            if any("capped" in entry for entry in entries):
                entry = next(entry for entry in entries if "capped" in entry)
                how = "not tried" if "untried" in entry else f"given up, {entry.get('ended', 0):,} had ended"
                lines.append(f"| {variant} | > {entry['value']:g} ({how}) |{' |' * (len(_SLOW_COLUMNS) - 1)}")
                continue
            cells = (number(median(result, metric, variant, figure)) for figure in _SLOW_COLUMNS)
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _growth_table(result: Result) -> str:
    lines: list[str] = []
    for metric, words in result["metrics"].items():
        row = result["figures"].get(metric)
        if not row:
            continue
        entries = [entry for rounds in row.values() for entry in rounds]
        sizes = sorted({int(key[3:]) for entry in entries for key in entry if key.startswith("us_")})
        kind = "KB" if metric.endswith("_length") else "KB a stream"
        heads = ["exponent", *(f"{size:,}: µs a piece" for size in sizes), *(f"{size:,}: {kind}" for size in sizes)]
        lines += [f"| **{words}** | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for variant in _ORDER:
            if variant in row:
                figures = ["value", *(f"us_{size}" for size in sizes), *(f"kb_{size}" for size in sizes)]
                cells = (number(median(result, metric, variant, figure)) for figure in figures)
                lines.append(f"| {variant} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def processes_table(results: Mapping[str, Result]) -> str:
    """The questions about whole processes and about the loop: a line for each case."""
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
                    f"| {variant} | {number(value)} | {'' if times is None or variant == OURS else _times(times)} "
                    f"| {number(cpu)} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def _run_line(run: Result, *, several: bool) -> str:
    rounds = f"{run['rounds']} round{'s' if run['rounds'] > 1 else ''}"
    load = f"load average {run['machine']['load_before']:g} at the start"
    what = "; each question was asked of everybody in one of these runs" if several else ""
    return (
        f"- Taken on {run['date']} with `{run['command']}`: {rounds}, {run.get('minutes', 0):g} minutes, {load}{what}."
    )


def conditions(results: Mapping[str, Result]) -> str:
    """Under which conditions the figures were taken."""
    one = next(iter(results.values()))
    machine, versions = one["machine"], one["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    pinned = "client and server pinned to a core each" if machine["pinned"] else "processes not pinned"
    processor = f", {machine['processor']}" if machine["processor"] else ""
    place = f"{machine['system']} {machine['architecture']}, {machine['cores']} cores{processor}"
    runs = {result["command"]: result for result in results.values()}
    lines = [
        *(_run_line(run, several=len(runs) > 1) for run in runs.values()),
        f"- {machine['python']} on {place}; {pinned}.",
        f"- {named}.",
    ]
    if any(run["machine"]["load_before"] > machine["cores"] / 2 for run in runs.values()):
        lines.append(
            "- **The machine was busy with other work.** CPU times are too high for all, wall times (first piece, "
            "start, gap, slow streams) are those of a queue; only ratios of CPU times say something. Run it again on "
            "a quiet machine."
        )
    lines += _server_lines(results)
    if "paced" in results and (reads := median(results["paced"], "bedrock_paced", "bare", "reads_per_piece")):
        lines.append(f"- In the paced question `bare` was woken {reads:.2f} times for each piece.")
    heavy = next((result["heavy"] for result in results.values() if "heavy" in result), None)
    if heavy is not None:
        lines.append(
            "- `python -X importtime -c 'import apex_llm'` loads "
            + (f"**{', '.join(heavy)}**." if heavy else "no httpx, pydantic, botocore or asyncio.")
        )
    return "\n".join(lines)


def _server_lines(results: Mapping[str, Result]) -> list[str]:
    lines: list[str] = []
    shares = [
        entry["server_busy"]
        for result in results.values()
        for row in result["figures"].values()
        for rounds in row.values()
        for entry in rounds
        if "server_busy" in entry
    ]
    if shares:
        lines.append(f"- The server was busy for at most {max(shares):.0%} of the time of any measurement.")
    server = results.get("server")
    if server is not None and "five_thousand" in server["figures"]:
        told = {name: median(server, "five_thousand", "server", name) for name in ("value", "per_second", "busy")}
        each, rate, busy = (value or 0.0 for value in told.values())
        lines.append(
            f"- Asked for 250,000 pieces a second by a client that only empties its sockets, it sent {rate:,.0f}, "
            f"at {each:.1f} µs of CPU for a piece, and was busy for {busy:.0%} of the time."
        )
    return lines


def _cell(result: Result, metric: str, variant: str, *, base: str = OURS, figure: str = "value") -> str:
    value = median(result, metric, variant, figure)
    if value is None:
        return ""
    entries = result["figures"][metric][variant]
    if figure == "value" and any("capped" in entry for entry in entries):
        return f"> {number(value)}"
    if variant == base:
        return f"**{number(value)}**"
    times = ratio(result, metric, variant, base, figure)
    return number(value) if times is None else f"{number(value)} ({_times(times)})"


def _times(value: float) -> str:
    digits = 2 if value < 2 else 1 if value < 10 else 0
    return f"{value:.{digits}f}x"
