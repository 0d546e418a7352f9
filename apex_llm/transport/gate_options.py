"""Which parts a gate has: what ``Limits`` was asked for, checked."""

from __future__ import annotations

__all__ = ["GateOptions"]

import msgspec

from apex_llm.transport.breaker import BreakerPolicy


class GateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``Limits`` was asked for."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst: float = 10.0
    learn: bool = False
    adaptive_concurrency: int | None = None
    max_concurrency: int | None = None
    breaker: BreakerPolicy | None = None
    max_waiting: int = 1000

    @property
    def active(self) -> bool:
        """Whether anything needs a gate at all."""
        return self.paces or self.max_concurrency is not None or self.breaker is not None

    @property
    def paces(self) -> bool:
        """Whether a refusal makes the next requests wait."""
        return self.counts_tokens or self.requests_per_minute is not None or self.adaptive_concurrency is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a request will be charged."""
        return self.learn or self.tokens_per_minute is not None
