"""The plot of docs/explanation/performance.md: an SVG written by hand, the same for the same results.

Above: CPU time of each client for a call, a paced piece and a piece, on a logarithmic scale. Below: what a piece costs
as streams grow longer and more numerous; a level line is linear growth. It follows the reader's light or dark mode.
"""

from __future__ import annotations

__all__ = ["drawn"]

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.bars import OURS, Result, median
from benchmarks.clients import PEERS

_WIDTH = 860
_LEFT = 172
_RIGHT = 30
_ROW = 25
_SERIES = (
    ("a call, 100 at once", "call", "hundred", "a"),
    ("a paced piece", "paced", "paced", "b"),
    ("a piece of a burst", "chunk", "fifty", "c"),
)
_GROWTH = (
    ("µs for a piece, by the length of a stream", "length"),
    ("µs for a piece, by the number of open slow streams", "streams"),
)
_LINES: Sequence[tuple[str, str, str]] = (
    (OURS, "bedrock", "a"),
    ("limit", "bedrock", "d"),
    ("aiobotocore", "bedrock", "b"),
    ("openai", "azure", "c"),
)
_STYLE = """
  .ground { fill: #ffffff } text { fill: #24292f; font: 12px system-ui, -apple-system, "Segoe UI", sans-serif }
  .title { font-weight: 600; font-size: 13px } .quiet { fill: #57606a; font-size: 11px } .ours { font-weight: 700 }
  .grid { stroke: #d0d7de; stroke-width: 1 } .row { stroke: #eaeef2; stroke-width: 1 }
  .a { fill: #0969da; stroke: #0969da } .b { fill: #bc4c00; stroke: #bc4c00 }
  .c { fill: #1a7f37; stroke: #1a7f37 } .d { fill: #6e7781; stroke: #6e7781 }
  .line { fill: none; stroke-width: 2 } .label { stroke: none }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 }
    .grid { stroke: #30363d } .row { stroke: #21262d }
    .a { fill: #58a6ff; stroke: #58a6ff } .b { fill: #f0883e; stroke: #f0883e }
    .c { fill: #56d364; stroke: #56d364 } .d { fill: #9198a1; stroke: #9198a1 }
  }
"""


class _Scale:
    """A logarithmic axis of whole decades, or halves of one, around some values."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, whole: bool = True) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        self._low, self._high = (math.floor(low), math.ceil(high)) if whole else (low, high)
        if self._low == self._high:
            self._high += 1
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return round(self._start + part * (self._stop - self._start), 1)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]


def drawn(results: Mapping[str, Result]) -> str:
    """The whole picture; what was not measured is left out."""
    parts, top = _clients(results, 24)
    grown, bottom = _growth(results, top + 34)
    body = "\n".join(parts + grown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom}" width="{_WIDTH}" height="{bottom}" '
        f'role="img" aria-labelledby="t">\n<title id="t">CPU time of apex_llm, of the floor and of other clients, and '
        f"how it grows</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="{_WIDTH}" height="{bottom}" rx="6"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{marked} text-anchor="{anchor}">{escape(words)}</text>'


def _mark(kind: str, x: float, y: float) -> str:
    """A shape of its own for each series, for those who see no colours."""
    if kind == "a":
        return f'<circle class="a" cx="{x:g}" cy="{y:g}" r="5"/>'
    if kind == "b":
        return f'<path class="b" d="M{x:g} {y - 6:g}l6 6l-6 6l-6 -6z"/>'
    return f'<rect class="{kind}" x="{x - 4.5:g}" y="{y - 4.5:g}" width="9" height="9"/>'


def _clients(results: Mapping[str, Result], top: float) -> tuple[list[str], int]:
    rows: list[tuple[str, str, dict[str, float]]] = []
    for wire, place in (("bedrock", "Bedrock"), ("azure", "Azure")):
        for variant in (OURS, "limit", *PEERS):
            found = {
                kind: value
                for _, name, metric, kind in _SERIES
                if name in results and (value := median(results[name], f"{wire}_{metric}", variant))
            }
            if found:
                rows.append((f"{variant}, {place}", variant, found))
    if not rows:
        return [], int(top)
    parts = [_text(16, top, "CPU time of the client, µs, logarithmic: less is better", "title")]
    at = _LEFT
    for words, _, _, kind in _SERIES:
        parts += [_mark(kind, at + 6, top + 20), _text(at + 17, top + 24, words)]
        at += 190
    first = top + 52
    last = first + _ROW * (len(rows) - 1)
    scale = _Scale([value for _, _, found in rows for value in found.values()], _LEFT, _WIDTH - _RIGHT)
    for decade in scale.decades():
        x = scale(decade)
        parts.append(f'<line class="grid" x1="{x:g}" y1="{first - 12:g}" x2="{x:g}" y2="{last + 12:g}"/>')
        parts.append(_text(x, last + 27, f"{decade:,.0f}" if decade >= 1 else f"{decade:g}", "quiet", "middle"))
    for index, (words, variant, found) in enumerate(rows):
        y = first + index * _ROW
        parts.append(_text(_LEFT - 14, y + 4, words, "ours" if variant == OURS else "", "end"))
        parts.append(f'<line class="row" x1="{_LEFT}" y1="{y:g}" x2="{_WIDTH - _RIGHT}" y2="{y:g}"/>')
        parts += [_mark(kind, scale(value), y) for kind, value in found.items()]
    return parts, int(last + 34)


def _growth(results: Mapping[str, Result], top: float) -> tuple[list[str], int]:
    result = results.get("growth")
    if result is None:
        return [], int(top)
    parts: list[str] = []
    height, gap = 170, 60
    panel = (_WIDTH - 60 - _RIGHT - gap) / 2
    for index, (title, kind) in enumerate(_GROWTH):
        left = 60 + index * (panel + gap)
        lines = {
            (variant, wire, colour): points
            for variant, wire, colour in _LINES
            if (points := _points(result, f"{wire}_{kind}", variant))
        }
        if not lines:
            continue
        sizes = [size for points in lines.values() for size, _ in points]
        across = _Scale(sizes, left, left + panel - 82, whole=False)
        upward = _Scale([cost for points in lines.values() for _, cost in points], top + height, top + 24)
        parts.append(_text(left - 44, top, title, "title"))
        for decade in upward.decades():
            y = upward(decade)
            parts.append(f'<line class="grid" x1="{left:g}" y1="{y:g}" x2="{left + panel:g}" y2="{y:g}"/>')
            parts.append(_text(left - 8, y + 4, f"{decade:,.0f}" if decade >= 1 else f"{decade:g}", "quiet", "end"))
        parts += [_text(across(size), top + height + 18, f"{size:,}", "quiet", "middle") for size in sorted(set(sizes))]
        parts += _labelled(lines, across, upward)
    return parts, int(top + height + 34)


def _points(result: Result, metric: str, variant: str) -> list[tuple[int, float]]:
    rounds = result["figures"].get(metric, {}).get(variant, ())
    sizes = sorted({int(key[3:]) for entry in rounds for key in entry if key.startswith("us_")})
    points = [(size, median(result, metric, variant, f"us_{size}")) for size in sizes]
    return [(size, cost) for size, cost in points if cost]


def _labelled(
    lines: Mapping[tuple[str, str, str], list[tuple[int, float]]], across: _Scale, upward: _Scale
) -> list[str]:
    parts: list[str] = []
    taken: list[float] = []
    for (variant, _, colour), points in sorted(lines.items(), key=lambda line: line[1][-1][1]):
        path = "L".join(f"{across(size):g} {upward(cost):g}" for size, cost in points)
        parts.append(f'<path class="{colour} line" style="fill:none" d="M{path}"/>')
        parts += [_mark(colour, across(size), upward(cost)) for size, cost in points]
        x, y = across(points[-1][0]) + 10, upward(points[-1][1]) + 4
        # From the lowest line up: labels that would touch are moved apart.
        if taken and y > taken[-1] - 13:
            y = taken[-1] - 13
        taken.append(y)
        parts.append(_text(x, y, variant, "ours" if variant == OURS else ""))
    return parts
