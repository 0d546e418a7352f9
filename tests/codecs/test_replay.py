"""Whole answers as streams: how their bodies are gathered."""

from __future__ import annotations

import pytest

from apex_llm.codecs import replay
from apex_llm.codecs.replay import WholeBodyFraming
from apex_llm.errors import LimitExceededError


def test_a_body_is_one_payload_at_its_end_in_whatever_pieces_it_came() -> None:
    framing = WholeBodyFraming()

    assert [list(framing.feed(piece)) for piece in (b"{", b'"a":', b"1}")] == [[], [], []]
    assert list(framing.finish()) == [("body", b'{"a":1}')]


def test_a_body_without_end_is_not_gathered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a call that is not streamed; only the deadline stopped it here."""
    monkeypatch.setattr(replay, "_MAX_BODY", 1000)
    framing = WholeBodyFraming()
    framing.feed(b" " * 1000)

    with pytest.raises(LimitExceededError) as caught:
        framing.feed(b" ")
    assert caught.value.limit == "body"
