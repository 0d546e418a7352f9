"""JSON that clouds really send, and JSON that attacks."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import apex_llm
from apex_llm.codecs.json_text import decode_json, encode_json
from apex_llm.errors import InvalidRequestError, LimitExceededError, ResponseFormatError


class Said(msgspec.Struct):
    text: str | None = None
    number: float | None = None
    raw: msgspec.Raw = msgspec.Raw(b"null")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"text":"Hi","unknown":[1]}', Said("Hi")),
        (b'{"text":"\\ud83d"}', Said("\ufffd")),
        (b'{"text":"\\ud83d\\ude00 \\udc00x"}', Said("\U0001f600 \ufffdx")),
        (b'{"number":1e400,"text":"Hi"}', Said("Hi", None)),
        (b'\xef\xbb\xbf{"text":"Hi"}', Said("Hi")),
    ],
)
def test_what_msgspec_refuses_is_read_once_more(body: bytes, said: Said) -> None:
    assert decode_json(body, Said, what="It") == said


def test_raw_members_survive_the_second_reading() -> None:
    assert bytes(decode_json(b'{"text":"\\ud800","raw":{"a":1}}', Said, what="It").raw) == b'{"a": 1}'


@pytest.mark.parametrize("body", [b"", b"{", b'{"text":7}', b'"\xff"', b"[]", b'{"text":"\\ud800","number":[]}'])
def test_what_is_broken_is_a_format_error_that_quotes_nothing(body: bytes) -> None:
    with pytest.raises(ResponseFormatError, match=r"^The answer ") as caught:
        decode_json(b" " + body, Said, what="The answer")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"x":' * 200_000, b'{"text":"\\ud800","x":' + b"[" * 200_000])
def test_nesting_too_deep_is_a_limit_error(body: bytes) -> None:
    with pytest.raises(LimitExceededError) as caught:
        decode_json(body, Any, what="It")  # pyright: ignore[reportArgumentType]
    assert caught.value.limit == "depth"


@given(st.binary(max_size=60))
def test_whatever_arrives_only_our_errors_leave(body: bytes) -> None:
    with contextlib.suppress(ResponseFormatError, LimitExceededError):
        decode_json(body, Said, what="It")


def test_any_mapping_sequence_and_common_value_can_be_written() -> None:
    value = {"a": MappingProxyType({"b": range(2)}), "bytes": b"abc", "day": dt.date(2026, 1, 2)}

    assert encode_json(value, what="It") == b'{"a":{"b":[0,1]},"bytes":"YWJj","day":"2026-01-02"}'


def test_what_cannot_be_written_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in ("\ud800", object(), {(1, 2): 3}, loop):
        with pytest.raises(InvalidRequestError, match=r"^The request "):
            encode_json(value, what="The request")


_FIRST_ANSWERS = """
import sys, threading
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec

sys.setswitchinterval(0.0005)
body = b'{"output":{"message":{"role":"assistant","content":[{"text":"x"}]}},"stopReason":"end_turn"}'
begin, texts = threading.Barrier(8), []

def read():
    begin.wait()
    texts.append(BedrockConverseCodec().decode(body).text)

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert texts == ["x"] * 8, texts
"""


@pytest.mark.parametrize("run", range(6))
def test_threads_may_read_the_first_answers_of_a_process_together(run: int) -> None:
    """msgspec studies a type at its first use, and another thread that decodes meanwhile ended the process."""
    subprocess.run([sys.executable, "-c", _FIRST_ANSWERS], check=True, timeout=60)


def test_every_typed_decoder_is_made_where_only_one_is_made_at_a_time() -> None:
    package = Path(apex_llm.__file__).parent
    typed = re.compile(r"json\.Decoder\(|json\.decode\([^)]*type=(?!msgspec\.Raw)")
    made = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "emulator" not in path.parts and typed.search(path.read_text(encoding="utf-8"))
    }

    assert made == {"types/decoders.py"}
