"""Token quotas: what a deployment may be asked for in a minute.

As on Azure, a request is charged when it is admitted, with the prompt's tokens and all that
it might produce, so a large ``max_tokens`` is throttled early. The bucket refills steadily.
"""

from __future__ import annotations

__all__ = ["TokenQuotas"]

import threading
from collections.abc import Mapping

from apex_llm.emulator.defaults import Call, count_tokens

_USUAL_OUTPUT_TOKENS = 16
_SECONDS = 60.0


class TokenQuotas:
    """One bucket for each limited deployment or model, full at the start.

    Args:
        tokens_per_minute: Deployment name or model id, as callers write it, to its limit.
    """

    def __init__(self, tokens_per_minute: Mapping[str, int]) -> None:
        self._limits = dict(tokens_per_minute)
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def charge(self, model: str, call: Call, *, now: float) -> int | None:
        """Take what ``call`` may cost; the milliseconds to wait where there is not enough left.

        A request that costs more than a minute's worth passes when the bucket is full, since it never could otherwise.
        """
        limit = self._limits.get(model)
        if limit is None:
            return None
        output = _USUAL_OUTPUT_TOKENS if call.max_tokens is None else call.max_tokens
        cost = min(count_tokens(call.everything) + output, limit)
        with self._lock:
            left, since = self._buckets.get(model, (float(limit), now))
            left = min(limit, left + (now - since) * limit / _SECONDS)
            if left < cost:
                self._buckets[model] = (left, now)
                return int((cost - left) * _SECONDS * 1000 / limit) + 1
            self._buckets[model] = (left - cost, now)
            return None
