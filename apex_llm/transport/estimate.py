"""How many tokens a request will be charged, guessed before it is sent.

Counting exactly needs each model's tokenizer, and a limiter needs only to be right on average:
bytes of the body divided by how many made a token in recent calls (four to begin with), plus the most
that may be written. Both services charge at admission in the same way, from the prompt and ``max_tokens``.
What the guess got wrong is corrected when the answer says what was used.
"""

from __future__ import annotations

__all__ = ["TokenEstimate", "largest_answer"]

import re
from typing import Final

from apex_llm.types.http import HttpRequest
from apex_llm.types.responses import Usage

# A quote inside a JSON string is escaped, so these can only be names of members.
_MOST: Final = re.compile(
    rb'"max(?:_tokens|_completion_tokens|_output_tokens|_new_tokens|_gen_len|Tokens|TokenCount)"\s*:\s*(\d{1,9})'
)
_MEDIA: Final = re.compile(rb"[A-Za-z0-9+/]{1024,}={0,2}")
_MEDIA_FROM: Final = 32 * 1024
_MEDIA_TOKENS: Final = 1500
_FIRST_BYTES_PER_TOKEN: Final = 4.0
_FIRST_ANSWER: Final = 256.0
_WEIGHT: Final = 0.2


def largest_answer(body: bytes) -> int | None:
    """The most tokens that the request lets the model write; ``None`` if it sets no limit."""
    match = _MOST.search(body)
    return int(match[1]) if match else None


class TokenEstimate:
    """Guesses for one model, which get better with each answer. No lock: its owner calls it in order."""

    __slots__ = ("_answer", "_bytes_per_token")

    def __init__(self) -> None:
        self._bytes_per_token = _FIRST_BYTES_PER_TOKEN
        self._answer = _FIRST_ANSWER

    def tokens(self, request: HttpRequest) -> int:
        """What ``request`` will be charged, at least 1.

        Base64 of an image or document counts as 1,500 tokens whatever its size. Without a limit in the
        request, the answer is taken to be as long as recent ones.
        """
        text, media = _measure(request.body)
        most = largest_answer(request.body)
        answer = self._answer if most is None else most
        return max(1, round(text / self._bytes_per_token + media * _MEDIA_TOKENS + answer))

    def learn(self, request: HttpRequest, usage: Usage) -> None:
        """Be better next time: ``usage`` is what ``request`` has really used."""
        text, media = _measure(request.body)
        if usage.input_tokens > 0 and not media:
            found = min(max(text / usage.input_tokens, 1.0), 40.0)
            self._bytes_per_token += _WEIGHT * (found - self._bytes_per_token)
        self._answer += _WEIGHT * (usage.output_tokens - self._answer)

    def charged(self, request: HttpRequest, usage: Usage, *, at_admission: bool) -> int:
        """What the service has charged.

        Args:
            request: As it was sent.
            usage: What was really used.
            at_admission: Whether the service keeps to what it charged before the answer, as Azure does, or
                gives back what was not written, as Bedrock does (where cache reads are free, too).
        """
        if not at_admission:
            return max(0, usage.input_tokens - usage.cache_read_tokens) + usage.output_tokens
        most = largest_answer(request.body)
        return usage.input_tokens + (usage.output_tokens if most is None else max(most, usage.output_tokens))


def _measure(body: bytes) -> tuple[int, int]:
    """Bytes of text, and how many pieces of base64 there are beside it."""
    size = len(body)
    if size < _MEDIA_FROM:
        return size, 0
    media = 0
    for match in _MEDIA.finditer(body):
        media += 1
        size -= match.end() - match.start()
    return size, media
