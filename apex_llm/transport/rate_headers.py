"""What a service says about its limits in the headers of an answer.

Azure OpenAI sends ``x-ratelimit-remaining-requests`` and ``-tokens`` with every answer, its v1
surface the ``-limit-`` and ``-reset-`` headers too; some gateways put 0 or -1 where they know
nothing. Resets are whole seconds there, durations such as ``6m0s`` or ``20ms`` at OpenAI. An older form of
refusal has only ``policy-id`` and ``x-rate-limit-reset-tokens``. Bedrock sends none of them.
"""

from __future__ import annotations

__all__ = ["RateFacts", "RateHeaders", "read_rate_headers"]

import re
from collections.abc import Mapping
from typing import Final

import msgspec

_DURATION: Final = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII
)
_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_UNITS: Final = (3600.0, 60.0, 1.0, 0.001)


class RateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, as far as an answer tells of it; ``None`` is unknown."""

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    """Seconds."""


class RateHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer tells of the limits that apply to it."""

    requests: RateFacts
    tokens: RateFacts
    policy: str
    """Which limit refused the request, in the service's words and lower case; ``""`` if it does not say."""

    @property
    def blames_requests(self) -> bool:
        """Whether a refusal was for too many requests rather than too many tokens, as far as it tells."""
        if self.policy:
            return "request" in self.policy and "token" not in self.policy
        return self.requests.remaining == 0 and self.tokens.remaining != 0


def read_rate_headers(headers: Mapping[str, str], *, refused: bool = False) -> RateHeaders:
    """The limits of an answer; nothing where there are no such headers.

    Args:
        headers: Names in lower case.
        refused: Whether the answer is a refusal (status 429). Elsewhere a remainder of 0 without a reset
            or a limit stands for *unknown*.
    """
    return RateHeaders(
        requests=_facts(headers, "requests", refused=refused),
        tokens=_facts(headers, "tokens", refused=refused),
        policy=headers.get("policy-id", "").lower(),
    )


def _facts(headers: Mapping[str, str], what: str, *, refused: bool) -> RateFacts:
    limit = _number(headers.get(f"x-ratelimit-limit-{what}"))
    remaining = _number(headers.get(f"x-ratelimit-remaining-{what}"))
    reset = _seconds(headers.get(f"x-ratelimit-reset-{what}") or headers.get(f"x-rate-limit-reset-{what}"))
    limit = limit or None
    reset = reset or None
    if remaining == 0 and not refused and limit is None and reset is None:
        remaining = None
    return RateFacts(limit=limit, remaining=remaining, reset=reset)


def _number(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if value >= 0 else None


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    text = text.strip()
    if not text or len(text) > 40:
        return None
    if (match := _DURATION.fullmatch(text)) is not None:
        return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)
    return _number(text)
