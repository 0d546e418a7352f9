"""What calls to one endpoint and model share: today the retry quota.

The quota keeps retries from multiplying the load on a service that is down. Its figures are
those of the AWS SDKs' standard retry mode: 500 tokens, 14 for a retry after a transient
failure, 5 after throttling, a successful retry gives back what it cost, and a call that
succeeds at once gives one. Whether to retry is ``retry``'s decision; this only keeps count.
"""

from __future__ import annotations

__all__ = ["Limits"]

import threading
from collections import OrderedDict
from typing import Any, Final, TypeAlias

Key: TypeAlias = tuple[str, str]
"""Endpoint, and model or deployment."""

_USUAL_QUOTA: Final = 500
_TRANSIENT_COST: Final = 14
_THROTTLE_COST: Final = 5
_MAX_KEYS: Final = 1000


class Limits:
    """Shared bookkeeping of one provider, or of several that are given the same object.

    May be used from any number of event loops and threads.

    Args:
        retry_quota: Tokens that each endpoint and model has for retries; ``True`` for the usual 500.
            ``None`` or ``False`` counts nothing, and so never refuses a retry.
    """

    def __init__(self, *, retry_quota: int | bool | None = True) -> None:
        if retry_quota is True:
            retry_quota = _USUAL_QUOTA
        elif retry_quota is False:
            retry_quota = None
        elif retry_quota is not None and retry_quota < 0:
            raise ValueError(f"retry_quota must be None or at least 0, not {retry_quota}.")
        self._capacity = retry_quota
        # What is missing from each quota. A key that is absent is full, which is the normal
        # state: so a call that succeeds costs one look-up, and forgetting an old key is safe.
        self._missing: OrderedDict[Key, int] = OrderedDict()
        # Re-entrant, since a coroutine dropped half-way gives its tokens back when the garbage
        # collector finds it, and that may happen in a thread that is inside one of these methods.
        self._lock = threading.RLock()

    def take_retry(self, key: Key, *, throttled: bool) -> int | None:
        """Pay for one retry: what it cost, or ``None`` when the quota does not cover it."""
        if self._capacity is None:
            return 0
        cost = _THROTTLE_COST if throttled else _TRANSIENT_COST
        with self._lock:
            missing = self._missing.get(key, 0)
            if missing + cost > self._capacity:
                return None
            self._missing[key] = missing + cost
            self._missing.move_to_end(key)
            if len(self._missing) > _MAX_KEYS:
                self._missing.popitem(last=False)
        return cost

    def give_back(self, key: Key, tokens: int) -> None:
        """Return ``tokens`` to the quota, never above its capacity."""
        if tokens <= 0 or key not in self._missing:
            return
        with self._lock:
            missing = self._missing.get(key, 0) - tokens
            if missing > 0:
                self._missing[key] = missing
            else:
                self._missing.pop(key, None)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain values, for logs and tests.

        ``{"retry_quota": {"capacity": 500, "remaining": {(endpoint, model): 486}}}``; a key
        that is not named has its full capacity.
        """
        with self._lock:
            missing = dict(self._missing)
        capacity = self._capacity
        remaining = {} if capacity is None else {key: capacity - tokens for key, tokens in missing.items()}
        return {"retry_quota": {"capacity": capacity, "remaining": remaining}}

    def __repr__(self) -> str:
        return f"Limits(retry_quota={self._capacity})"
