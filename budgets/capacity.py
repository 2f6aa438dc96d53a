"""How much context memory a backend has and how fast it computes contexts, given or learned."""

from __future__ import annotations

import math

from longthought.budgets.lease_book import check_tokens
from longthought.errors import InvalidInput

__all__ = ["MemoryEstimate"]

_LEAST_CACHED = 1024
"""Tokens below which a reply says nothing about a cache: some do not cache shorter prompts."""
_LEAST_PREFILLED = 256
"""Tokens below which the time to the first token says little about the rate."""


class MemoryEstimate:
    """Tokens of memory, and tokens per second of prefill.

    A reply that found less of its context than the memory should have held makes the estimate
    smaller by a quarter, every other one larger by 2 %, up to what was given.
    """

    __slots__ = ("_given", "_shrunk", "capacity", "prefill_rate")

    def __init__(self, capacity: int | None, prefill_rate: float) -> None:
        if not 0 < prefill_rate < math.inf:
            raise InvalidInput(
                "prefill_rate", f"{prefill_rate} is no rate", "use tokens per second: 8000"
            )
        self.prefill_rate = prefill_rate
        self._shrunk = -math.inf
        self.give(capacity)

    @property
    def given(self) -> int | None:
        """What was said to be the size, None if nobody knows."""
        return self._given

    @property
    def tau(self) -> float:
        """Seconds to compute the whole memory anew; infinite while its size is unknown."""
        return math.inf if self.capacity is None else self.capacity / self.prefill_rate

    def give(self, capacity: int | None) -> None:
        """Say what the size is.

        Raises:
            InvalidInput: it is no whole number from 1, nor None.
        """
        if capacity is not None and check_tokens("capacity", capacity) == 0:
            raise InvalidInput("capacity", "0 tokens hold no context", "use None if it is unknown")
        self._given = self.capacity = capacity

    def first_token(self, tokens: int, seconds: float) -> None:
        """The first token came after so many seconds, for so many tokens that were not cached.

        Waiting inside the engine makes it look slower than it is, so fast answers count for more.
        """
        if tokens < _LEAST_PREFILLED or not 0 < seconds < math.inf:
            return
        rate = tokens / seconds
        weight = 0.2 if rate > self.prefill_rate else 0.02
        self.prefill_rate += (rate - self.prefill_rate) * weight

    def found(
        self, cached: int, expected: int, *, granted: float, now: float, used: int, least: int
    ) -> None:
        """A reply to a call granted at ``granted`` found ``cached`` of ``expected`` tokens.

        ``used`` is what the memory is thought to hold now, taken for its size if nothing else is
        known. The estimate never falls below ``least``, nor below a quarter of what was given, and
        no miss makes it larger.
        """
        if expected < _LEAST_CACHED:
            return
        if cached >= 0.8 * expected:
            if self.capacity is not None and self.capacity != self._given:
                grown = self.capacity + max(1, self.capacity // 50)
                self.capacity = grown if self._given is None else min(grown, self._given)
        elif granted > self._shrunk:  # what was dispatched before says nothing about it
            self._shrunk = now
            believed = used if self.capacity is None else self.capacity
            floor = max(1, least, 0 if self._given is None else self._given // 4)
            smaller = max(min(floor, believed), int(believed * 0.75))
            self.capacity = smaller if self._given is None else min(smaller, self._given)
