"""How many exchanges at a time a service bears, found out by trying.

Additive increase, multiplicative decrease: Chiu and Jain (1989) showed that of the simple rules
it is the one by which clients that know nothing of each other arrive at equal shares. No clock,
no lock: whoever owns it calls it in order.
"""

from __future__ import annotations

__all__ = ["AdaptiveConcurrency"]

from math import inf


class AdaptiveConcurrency:
    """A limit that grows by one with each window of successes and shrinks by ``factor`` when throttled.

    Args:
        initial: The limit to begin with.
        maximum: The limit is never above it.
        factor: What is left of the limit after throttling; never less than 1 exchange.
    """

    __slots__ = ("_factor", "_judged", "_maximum", "_successes", "_used", "limit")

    def __init__(self, initial: int, *, maximum: float = inf, factor: float = 0.7) -> None:
        self.limit: int = int(min(initial, maximum))
        """Exchanges at a time."""
        self._maximum = maximum
        self._factor = factor
        self._successes = 0
        self._used = False
        self._judged = 0

    def saturated(self) -> None:
        """All of the limit is in use. A limit that nobody needs is not raised: success would prove nothing."""
        self._used = True

    def succeeded(self) -> None:
        """An exchange ended well."""
        self._successes += 1
        if self._successes < self.limit:
            return
        if self._used and self.limit < self._maximum:
            self.limit += 1
        self._successes = 0
        self._used = False

    def withdrawn(self) -> None:
        """What was told as a success was none after all. A limit that it raised is as much harder to raise again."""
        self._successes -= 1

    def throttled(self, number: int, *, newest: int) -> None:
        """The service refused exchange ``number``.

        Refusals of exchanges that were under way when the limit was last lowered say nothing about the new
        limit, so a burst of them counts once.

        Args:
            number: Of the exchange; later ones have higher numbers.
            newest: The number of the latest exchange that was let go.
        """
        if number <= self._judged:
            return
        self._judged = newest
        self.limit = max(1, int(self.limit * self._factor))
        self._successes = 0
        self._used = False
