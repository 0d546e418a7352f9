"""Streams: what a caller iterates over, and how an attempt at one is made."""

from __future__ import annotations

__all__ = [
    "Accumulator",
    "EventStream",
    "Exchange",
    "TextStream",
    "content_filtered",
    "open_exchange",
    "place_in_body",
    "request_id_in",
    "request_id_of",
]

from apex_llm.streaming.accumulator import Accumulator
from apex_llm.streaming.exchange import Exchange, open_exchange, place_in_body, request_id_in, request_id_of
from apex_llm.streaming.streams import EventStream, TextStream, content_filtered
