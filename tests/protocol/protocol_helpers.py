"""Vectors, and bytes cut into pieces, for the tests of this directory."""

from __future__ import annotations

__all__ = ["byte_by_byte", "load_vectors", "pieces_of", "sizes"]

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

_VECTORS = Path(__file__).parent.parent / "vectors"

sizes = st.lists(st.integers(0, 40), max_size=200)
"""Sizes of reads, empty ones among them; what they leave is one last read."""


def load_vectors(name: str) -> dict[str, Any]:
    return json.loads((_VECTORS / f"{name}_vectors.json").read_text(encoding="utf-8"))


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]
